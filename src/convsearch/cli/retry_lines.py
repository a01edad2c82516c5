"""What is said of requests that are tried again: a line now and then, not one a request."""

import sys
import time
from collections.abc import Callable

from stamina.instrumentation import RetryDetails

from convsearch.visible import visible

QUIET_S = 10.0
"""Between two lines of one kind of failure."""


class RetryLines:
    """A hook for stamina, in place of its own log lines.

    Many requests fail together where a server is down or busy. The first of a kind is told, and
    then one in ten seconds with the number of those in between.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def __call__(self, details: RetryDetails) -> None:
        """Tells of one failure on stderr, or counts it."""
        said = visible(str(details.caused_by) or type(details.caused_by).__name__)
        kind = f"{type(details.caused_by).__name__} {said.partition(':')[0]}"
        now = self._clock()
        if now - self._told_at.get(kind, float("-inf")) < QUIET_S:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        self._told_at[kind] = now
        more = self._untold.pop(kind, 0)
        others = f", and {more} more like it" if more else ""
        print(
            f"attempt {details.retry_num} failed ({said}){others}; the next in "
            f"{details.wait_for:.1f} s",
            file=sys.stderr,
        )
