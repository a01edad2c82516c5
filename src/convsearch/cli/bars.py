"""Bars of long work on stderr, with the time that is left."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def bars(work: Mapping[str, float]) -> Iterator[Callable[[str, float], None]]:
    """A bar with the time that is left, on stderr, for each piece of work and how much it is, one
    after the other. Gives what is called with (piece, done of it)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        tasks = {
            what: shown.add_task(what, total=total, start=not number)
            for number, (what, total) in enumerate(work.items())
        }

        def report(what: str, done: float) -> None:
            for earlier in itertools.takewhile(lambda name: name != what, tasks):
                shown.update(tasks[earlier], completed=work[earlier])
            if not shown.tasks[tasks[what]].started:
                shown.start_task(tasks[what])
            shown.update(tasks[what], completed=min(done, work[what]))

        yield report
