"""Gathers single asynchronous calls into batches: one request for many waiting rollouts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class MicroBatcher(Generic[T, R]):
    """Calls `handle` with up to `batch_size` items at once, at most `max_wait_s` after the first.

    handle: gets items and returns as many results, by position. An error it raises goes to every
    caller of that batch, and to nobody else. Batches run side by side; none waits for another.
    Use from one event loop.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        batch_size: int,
        max_wait_s: float,
    ) -> None:
        self._handle = handle
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: T) -> R:
        """The result for one item; raises what `handle` raised for its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._batch_size:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._max_wait_s, self._flush)
        return await future

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        if batch:
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self._handle([item for item, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(batch)} items were handled with {len(results)} results")
        except Exception as error:  # every waiting caller must learn of it, whatever it is
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
