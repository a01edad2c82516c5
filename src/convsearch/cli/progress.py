"""Progress of a run on stderr: a live line on a terminal, plain lines in a log."""

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from convsearch.pipeline.runner import Counts

LOG_EVERY_S = 20.0
"""In a log, a stage says how far it is at most this often."""


class StageProgress:
    """Implements `convsearch.pipeline.runner.Observer`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._head = ""
        self._start = self._said = 0.0

    def __enter__(self) -> "StageProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()

    def started(self, stage: str, number: int, total: int) -> None:
        self._head = f"[{number}/{total}] {stage}"
        self._start = self._said = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(Text(self._head), console=self._console, transient=True)
            self._live.start()
        else:
            self._say(f"{self._head} ...")

    def advanced(self, stage: str, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        text = f"{self._head}: {done}/{total} {what}".rstrip() + f", {now - self._start:.0f} s"
        if self._live is not None:
            self._live.update(Text(text, overflow="ellipsis", no_wrap=True))
        elif now - self._said >= LOG_EVERY_S:
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
