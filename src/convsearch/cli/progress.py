"""Progress of a run on stderr: a live line on a terminal, plain lines in a log."""

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from convsearch.cli.steps import LINE_EVERY_S, Pace, duration, step_line
from convsearch.pipeline.layout import TRAINED
from convsearch.pipeline.runner import Counts


class StageProgress:
    """Implements `convsearch.pipeline.runner.Observer`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._head = ""
        self._start = self._said = 0.0
        self._pace = Pace()

    def __enter__(self) -> "StageProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()

    def started(self, stage: str, number: int, total: int) -> None:
        self._head = f"[{number}/{total}] {stage}"
        self._start = self._said = time.monotonic()
        self._pace = Pace()
        if self._console.is_terminal:
            self._live = Live(Text(self._head), console=self._console, transient=True)
            self._live.start()
        else:
            self._say(f"{self._head} ...")

    def advanced(self, stage: str, done: int, total: int, what: str) -> None:
        """In a log, the stages that train have a line for every step, the others now and then."""
        now = time.monotonic()
        passed = f"{duration(now - self._start)} so far"
        left = ", ".join(part for part in (self._pace.left(done, total), passed) if part)
        text = step_line(self._head, done, total, what, left)
        if self._live is not None:
            self._live.update(Text(text, overflow="ellipsis", no_wrap=True))
        elif stage in TRAINED or now - self._said >= LINE_EVERY_S:
            self._said = now
            self._say(text)

    def ended(self, stage: str, seconds: float, counts: Counts, *, reused: bool) -> None:
        self._stop_live()
        details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
        state = f"kept from before ({seconds:.1f} s)" if reused else f"{seconds:.1f} s"
        self._say(f"{stage:<12} {state:>8}  {details}".rstrip())

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
