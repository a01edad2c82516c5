"""When a client asks again: how long it waits after a failure, and what the server asked for."""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

_SPREAD_S = 2.0
_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


class TransientError(Exception):
    """An answer that may be better the next time. Never leaves the clients."""

    def __init__(self, sentence: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Waits:
    """The waits of a client that is not told how long to wait."""

    initial_s: float
    factor: float
    longest_s: float
    """Each wait is `factor` times the one before, up to this, times 0.5 to 1."""


class Backoff:
    """How long to wait after each failure of one request: a hook for stamina."""

    def __init__(self, deadline: float, waits: Waits) -> None:
        """deadline: on the clock of `time.monotonic`."""
        self._deadline = deadline
        self._waits = waits
        self.failures = 0

    def __call__(self, error: Exception) -> bool | float:
        """Seconds until the next attempt; False where another one makes no sense.

        A wait that would pass the deadline is not begun. What the server asks for in Retry-After
        is kept, and spread over a moment more, so that clients refused together do not come back
        together.
        """
        if not isinstance(error, TransientError | httpx.TransportError):
            return False
        waits, left_s = self._waits, self._deadline - time.monotonic()
        wait_s = min(waits.longest_s, waits.initial_s * waits.factor ** min(self.failures, 99))
        wait_s *= random.uniform(0.5, 1.0)
        self.failures += 1
        asked_s = error.retry_after_s if isinstance(error, TransientError) else 0.0
        if asked_s >= left_s:
            return False
        if asked_s:
            spread_s = min(asked_s, _SPREAD_S, (left_s - asked_s) / 2)
            wait_s = max(asked_s + random.uniform(0, spread_s), min(wait_s, left_s / 2))
        return wait_s if wait_s < left_s else False


def retry_after_s(headers: Mapping[str, str]) -> float:
    """The wait that Retry-After asks for, in seconds, of a number or of a date; 0 where there is
    none, none that can be read, or the date is past.

    A date is compared with the server's own (`Date`), since its clock and ours may differ.
    """
    asked = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(asked):
        return float(asked)
    until = _instant(asked)
    if until is None:
        return 0.0
    now = _instant(headers.get("date", "")) or datetime.now(timezone.utc)
    return max(0.0, (until - now).total_seconds())


def _instant(text: str) -> datetime | None:
    """A date of HTTP; None for anything else."""
    try:
        found = parsedate_to_datetime(text)
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
