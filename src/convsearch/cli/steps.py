"""Progress of work in steps, on stderr: a bar on a terminal, lines where stderr is a file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from convsearch.train.metrics import ProgressCallback, TrainProgress
from convsearch.train.preflight.machine import Chosen
from convsearch.train.step_text import step_text

LINE_EVERY_S = 20.0
"""Between two lines about work whose steps are short."""

Advance = Callable[..., None]
"""(piece of work, steps done, of how many, what is said of the last one = "")."""


class Pace:
    """Time that is left, from the steps that were seen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def left(self, done: int, total: int) -> str:
        """`7 min left`; empty before the second step and after the last one."""
        now = self._clock()
        if self._first is None or done < self._first[1]:
            self._first = now, done
        start, first = self._first
        if not first < done < total:
            return ""
        return f"{duration((now - start) / (done - first) * (total - done))} left"


def duration(seconds: float) -> str:
    """`40 s`, `7 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def step_line(piece: str, done: int, total: int, said: str, left: str) -> str:
    """`grpo 12/90: reward 0.412, …, 7 min left`."""
    details = ", ".join(part for part in (said, left) if part)
    return f"{piece} {done}/{total}" + (f": {details}" if details else "")


@contextmanager
def step_progress(
    *, every_s: float = LINE_EVERY_S, console: Console | None = None
) -> Iterator[Advance]:
    """Gives what is called after each step. every_s: least time between two lines in a file, 0 for
    a line a step; the first and the last step of a piece always have one."""
    console = console or Console(stderr=True, highlight=False)
    if console.is_terminal:
        yield from _bars(console)
    else:
        yield _lines(console, every_s)


def _bars(console: Console) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(piece: str, done: int, total: int, said: str = "") -> None:
            if piece not in tasks:
                tasks[piece] = progress.add_task(piece, total=total)
            text = f"{piece}, {said.partition(',')[0]}" if said else piece
            progress.update(tasks[piece], completed=done, total=total or None, description=text)

        yield advance


def _lines(console: Console, every_s: float) -> Advance:
    paces: dict[str, Pace] = {}
    told: dict[str, float] = {}

    def advance(piece: str, done: int, total: int, said: str = "") -> None:
        left = paces.setdefault(piece, Pace()).left(done, total)
        now = time.monotonic()
        if piece in told and done < total and now - told[piece] < every_s:
            return
        told[piece] = now
        line = step_line(piece, done, total, said, left) if total else f"{piece}: {said}"
        console.print(line, soft_wrap=True, markup=False)

    return advance


def say_device(chosen: Chosen) -> None:
    """Where a training runs, in a line on stderr, if the command left it open."""
    if chosen.reason is not None:
        print(f"device: {chosen.device} ({chosen.reason})", file=sys.stderr)


@contextmanager
def train_progress(stage: str) -> Iterator[ProgressCallback]:
    """The same for a trainer: a line for every step."""
    with step_progress(every_s=0.0) as advance:
        advance(stage, 0, 0, "starting the trainer")

        def report(progress: TrainProgress) -> None:
            advance(stage, progress.step, progress.total_steps, step_text(progress.metrics))

        yield report
