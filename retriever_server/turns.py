"""Turns on the event loop, so that a crowd of requests does not make health checks wait."""

import asyncio
from collections import deque


class Turns:
    """Lets coroutines go on a few in each pass of the event loop, first come, first served.

    One engine call answers hundreds of requests in the same moment, and their clients ask again in
    the same moment. The loop looks at its sockets between passes only, so whatever comes meanwhile
    would wait until all of them are worked off. Use it from one event loop.
    """

    def __init__(self, per_pass: int) -> None:
        """per_pass: coroutines that go on in one pass."""
        self._per_pass = per_pass
        self._left = per_pass
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._passing = False

    async def take(self) -> None:
        """Goes on in this pass or a later one. Cancelling gives the turn to the next."""
        if self._left > 0:
            self._go_on()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _go_on(self) -> None:
        self._left -= 1
        if not self._passing:
            self._passing = True
            asyncio.get_running_loop().call_soon(self._next_pass)

    def _next_pass(self) -> None:
        self._passing = False
        self._left = self._per_pass
        while self._left > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._go_on()
