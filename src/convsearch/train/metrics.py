"""`metrics.jsonl` of a training: one line a step, `{"stage": …, "step": n, name: number, …}`.

verl's file logger starts its file anew on every start and nests the numbers under `data`. So each
attempt logs to a file of its own, and its lines are merged into `metrics.jsonl`; a step done again
after a resume counts once. A number that is not finite is null in both files.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError, StageError
from convsearch.files import field, read_jsonl, write_jsonl

Metrics = dict[str, float]
NO_UPDATES = 3
"""Steps one after the other whose gradient is not finite, after which a training is stopped: verl
leaves the weights as they are for such a step, which one bad batch may cause."""


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """One finished step of a training."""

    step: int
    total_steps: int
    metrics: Metrics


ProgressCallback = Callable[[TrainProgress], None]


def read_metrics(path: Path) -> dict[int, Metrics]:
    """Step -> metrics, in order of steps; empty where the file does not exist. Reads both forms,
    also mixed; null is read as NaN. Raises DataError that names file and line."""
    steps: dict[int, Metrics] = {}
    for where, record in read_jsonl(path, allow_nan=True) if path.is_file() else ():
        step, values = _parsed(record, where)
        steps.setdefault(step, {}).update(values)
    return dict(sorted(steps.items()))


def _parsed(record: dict[str, object], where: str) -> tuple[int, Metrics]:
    step = field(record, "step", int, where)
    values = record.get("data", record)
    if not isinstance(values, dict):
        raise DataError(f'{where}: field "data" must be an object, found {type(values).__name__}')
    return step, {
        str(name): math.nan if value is None else float(value)
        for name, value in values.items()
        if name not in ("stage", "step") and (value is None or isinstance(value, int | float))
    }


def metrics_line(stage: str, step: int, values: Metrics) -> dict[str, object]:
    """One line of `metrics.jsonl`."""
    numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {"stage": stage, "step": step, **numbers}


def _not_finite(values: Metrics, kind: str) -> str | None:
    """Name of the first number of this kind (last word of its name) that is not finite."""
    named = (name for name in values if re.split(r"[/_]", name)[-1] == kind)
    return next((name for name in named if not math.isfinite(values[name])), None)


class MetricsFollower:
    """Follows the log of one attempt and keeps `metrics.jsonl` up to date."""

    def __init__(
        self,
        metrics_path: Path,
        *,
        stage: str,
        total_steps: int,
        on_progress: ProgressCallback | None,
    ) -> None:
        """Takes over what an interrupted attempt left behind."""
        self.attempt_path = metrics_path.with_name(f"{metrics_path.stem}.attempt.jsonl")
        self._path = metrics_path
        self._stage = stage
        self._total_steps = total_steps
        self._on_progress = on_progress
        self._steps = read_metrics(metrics_path)
        self._offset = 0
        self._read()
        self.attempt_path.unlink(missing_ok=True)
        self._offset = 0

    def poll(self) -> None:
        """Reads the lines that are complete by now. Raises StageError where one of them says that
        the training diverged."""
        for step in self._read():
            if self._on_progress is not None:
                progress = TrainProgress(
                    step=step, total_steps=self._total_steps, metrics=self._steps[step]
                )
                self._on_progress(progress)
            self._check(step)

    def close(self) -> None:
        """Reads the rest and removes the attempt's own file."""
        self._read()
        self.attempt_path.unlink(missing_ok=True)

    def require_finite(self, up_to: int) -> None:
        """Raises StageError where a step that a checkpoint holds, up to this one, has diverged."""
        for step in sorted(self._steps):
            if step <= up_to:
                self._check(step)

    def _check(self, step: int) -> None:
        """Raises StageError for a loss that is not finite, or too many gradients in a row."""
        what = _not_finite(self._steps[step], "loss")
        if what is None:
            last = [self._steps.get(step - back, {}) for back in range(NO_UPDATES)]
            if any(_not_finite(values, "norm") is None for values in last):
                return
            what = f"the gradient of this step and of the {NO_UPDATES - 1} before"
        raise StageError(
            f"{self._stage}: step {step}: {what} is not a finite number, so the training "
            "is stopped and its checkpoints are kept; look at the rows of the training file, lower "
            "--lr, and start in another folder"
        )

    def _read(self) -> list[int]:
        """Takes in what is complete by now; the steps it was about, in order."""
        if not self.attempt_path.is_file():
            return []
        with self.attempt_path.open("rb") as stream:
            stream.seek(self._offset)
            lines = stream.read().split(b"\n")[:-1]
        if not lines:
            return []
        self._offset += sum(len(line) + 1 for line in lines)
        touched: list[int] = []
        for line in lines:
            record = json.loads(line)
            step, values = _parsed(record, str(self.attempt_path))
            self._steps[step] = {**self._steps.get(step, {}), **values}
            touched.append(step)
        rows = (metrics_line(self._stage, *row) for row in sorted(self._steps.items()))
        write_jsonl(self._path, rows)
        return list(dict.fromkeys(touched))
