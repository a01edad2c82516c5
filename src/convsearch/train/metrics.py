"""`metrics.jsonl` of a training: one line a step, `{"step": n, "data": {...}}`, as verl writes it.

verl's file logger starts its file anew on every start. So each attempt logs to a file of its own,
and its lines are merged into `metrics.jsonl`; a step done again after a resume counts once.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convsearch.files import read_jsonl, write_jsonl

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """One finished step of a training."""

    step: int
    total_steps: int
    metrics: Metrics


ProgressCallback = Callable[[TrainProgress], None]


def read_metrics(path: Path) -> dict[int, Metrics]:
    """Step -> metrics, in order of steps; empty where the file does not exist."""
    if not path.is_file():
        return {}
    steps: dict[int, Metrics] = {}
    for _, record in read_jsonl(path, allow_nan=True):
        step, data = record["step"], record["data"]
        assert isinstance(step, int)
        assert isinstance(data, dict)
        steps.setdefault(step, {}).update(data)
    return dict(sorted(steps.items()))


class MetricsFollower:
    """Follows the log of one attempt and keeps `metrics.jsonl` up to date."""

    def __init__(
        self, metrics_path: Path, *, total_steps: int, on_progress: ProgressCallback | None
    ) -> None:
        """Takes over what an interrupted attempt left behind."""
        self.attempt_path = metrics_path.with_name(f"{metrics_path.stem}.attempt.jsonl")
        self._path = metrics_path
        self._total_steps = total_steps
        self._on_progress = on_progress
        self._steps = read_metrics(metrics_path)
        self._offset = 0
        self.poll()
        self.attempt_path.unlink(missing_ok=True)
        self._offset = 0

    def poll(self) -> None:
        """Reads the lines that are complete by now."""
        if not self.attempt_path.is_file():
            return
        with self.attempt_path.open("rb") as stream:
            stream.seek(self._offset)
            lines = stream.read().split(b"\n")[:-1]
        if not lines:
            return
        self._offset += sum(len(line) + 1 for line in lines)
        touched: list[int] = []
        for line in lines:
            record = json.loads(line)
            self._steps[record["step"]] = {**self._steps.get(record["step"], {}), **record["data"]}
            touched.append(record["step"])
        rows = ({"step": step, "data": data} for step, data in sorted(self._steps.items()))
        write_jsonl(self._path, rows)
        if self._on_progress is not None:
            for step in dict.fromkeys(touched):
                progress = TrainProgress(
                    step=step, total_steps=self._total_steps, metrics=self._steps[step]
                )
                self._on_progress(progress)

    def close(self) -> None:
        """Reads the rest and removes the attempt's own file."""
        self.poll()
        self.attempt_path.unlink(missing_ok=True)
