"""What a training says on the command line while it goes on."""

import sys

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from convsearch.train.metrics import ProgressCallback, TrainProgress
from convsearch.train.preflight.machine import Chosen


def say_device(chosen: Chosen) -> None:
    """Where the training runs, in a line on stderr, if the command left it open."""
    if chosen.reason is not None:
        print(f"device: {chosen.device} ({chosen.reason})", file=sys.stderr)


class TrainBar:
    """A bar on stderr that shows the newest value of one metric. Use it in a `with` block."""

    def __init__(self, metric: str, label: str) -> None:
        from rich.console import Console

        self._metric = metric
        self._label = label
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("starting the trainer", total=None)

    def __enter__(self) -> ProgressCallback:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, progress: TrainProgress) -> None:
        value = progress.metrics.get(self._metric)
        description = f"{self._label} {value:.3f}" if value is not None else "training"
        self._progress.update(
            self._task,
            completed=progress.step,
            total=progress.total_steps,
            description=description,
        )
