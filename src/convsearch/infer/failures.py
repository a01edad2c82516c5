"""Requests of one call that got no answer: told at its end, and an error where there are no others.

A block in which every request failed is held back until something of the call is answered. So a
call that reaches nobody leaves nothing behind, and the same command asks again.
"""

import logging
from collections.abc import Sequence
from typing import Generic, TypeVar

from convsearch.errors import EngineError

log = logging.getLogger(__name__)
Made = TypeVar("Made")


class Failures(Generic[Made]):
    """Of one call of a command that sends blocks of requests."""

    def __init__(self, *, what: str = "requests") -> None:
        """what: the noun of the sentences."""
        self._what = what
        self._held: list[Made] = []
        self._asked = 0
        self._failed = 0
        self._first: str | None = None

    def passed(self, block: Made, errors: Sequence[str | None]) -> list[Made]:
        """Takes a block that is done; returns the blocks to be kept now. errors: of each of its
        requests; None for an answered one."""
        failed = [error for error in errors if error is not None]
        self._asked += len(errors)
        self._failed += len(failed)
        if failed and self._first is None:
            self._first = failed[0]
        self._held.append(block)
        if self._asked == self._failed:
            return []
        kept, self._held = self._held, []
        return kept

    def end(self) -> None:
        """No more will come. Says in the log how many failed, if any; raises EngineError where all
        did."""
        if not self._failed:
            return
        if self._asked == self._failed:
            raise EngineError(
                f"no answer to any of {self._asked} {self._what} (the first: {self._first}); mend "
                "that and run the same command again: finished work is kept"
            )
        log.warning(
            "%d of %d %s got no answer (the first: %s); --retry-failed asks for them again",
            self._failed,
            self._asked,
            self._what,
            self._first,
        )


def refuse_unanswered(where: object, failed: int, of: int) -> None:
    """Raises EngineError for a finished output that holds no answer at all."""
    if of and failed == of:
        raise EngineError(
            f"{where}: none of its {of} requests got an answer; --retry-failed asks for them again"
        )
