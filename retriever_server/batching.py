"""The queue in front of an engine: requests that wait together are searched together.

One thread calls the engine (the GPU indexes of FAISS are not safe for threads), one call at a time;
whatever comes meanwhile waits and shares the next call. Nobody waits for company, so a lone request
is searched at once.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from convsearch.errors import EngineError
from convsearch.retrieval.protocol import Retriever
from convsearch.types import Hit
from retriever_server.metrics import QueueMetrics
from retriever_server.parts import DegradedError, Partial, PartlyAnswering, whole
from retriever_server.watch import IndexChangedError

Ranks = list["int | None"]
Lists = list[list[Hit]]
_Golds = Sequence[Sequence[str]]
T = TypeVar("T")
CPU = "cpu"
"""Of an engine without an accelerator."""


class Guard(Protocol):
    """Does work that reads an index; see `IndexWatch.guarded`."""

    def __call__(self, work: Callable[[], T]) -> T: ...


def unguarded(work: Callable[[], T]) -> T:
    """Of an engine without files."""
    return work()


@runtime_checkable
class QueryLengthSettable(Protocol):
    """An engine that cuts queries: `with_query_length` gives the same engine with another cut."""

    def with_query_length(self, max_length: int) -> Retriever: ...


@runtime_checkable
class OnDevice(Protocol):
    """An engine that says what it runs on."""

    @property
    def device(self) -> str:
        """`cpu`, or the kind of accelerator, such as `cuda`."""
        ...


def device_of(engine: object) -> str:
    """What an engine runs on: the CPU where it does not say."""
    return engine.device if isinstance(engine, OnDevice) else CPU


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Jobs of one shape can share a call."""

    wants_ranks: bool
    topk: int
    max_length: int | None


@dataclass(eq=False, kw_only=True)
class _Job:
    shape: _Shape
    queries: Sequence[str]
    golds: _Golds
    answer: "asyncio.Future[Partial[object]]"
    since: float = field(default_factory=time.monotonic)


class SearchQueue:
    """Searches one engine for many requests. Use it from one event loop."""

    def __init__(
        self,
        engine: Retriever,
        thread: Executor,
        *,
        max_queries: int,
        metrics: QueueMetrics,
        guard: Guard = unguarded,
    ) -> None:
        """thread: an executor of one thread; engines of one device share it. max_queries: of one
        engine call, unless a single request has more. guard: that each call is done by."""
        self._engine = engine
        self._thread = thread
        self._max_queries = max_queries
        self._metrics = metrics
        self._guard = guard
        self._waiting: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._calls = 0

    async def ranks(
        self, queries: Sequence[str], golds: _Golds, topk: int, *, max_length: int | None = None
    ) -> Ranks:
        """See `Retriever.ranks`. What the engine raises for this request reaches it and no other;
        DegradedError where a part of the index is missing.

        Cancelling the call takes the request out of the queue.
        """
        return whole(await self.partial_ranks(queries, golds, topk, max_length=max_length))

    async def search(
        self, queries: Sequence[str], topk: int, *, max_length: int | None = None
    ) -> Lists:
        """See `Retriever.search`; errors and cancelling as for `ranks`."""
        return whole(await self.partial_search(queries, topk, max_length=max_length))

    async def partial_ranks(
        self, queries: Sequence[str], golds: _Golds, topk: int, *, max_length: int | None = None
    ) -> "Partial[int | None]":
        """As `ranks`, from what of the index is there."""
        shape = _Shape(wants_ranks=True, topk=topk, max_length=max_length)
        return await self._ask(shape, queries, golds)  # pyright: ignore[reportReturnType]

    async def partial_search(
        self, queries: Sequence[str], topk: int, *, max_length: int | None = None
    ) -> Partial[list[Hit]]:
        """As `search`, from what of the index is there."""
        shape = _Shape(wants_ranks=False, topk=topk, max_length=max_length)
        return await self._ask(shape, queries, ())  # pyright: ignore[reportReturnType]

    def close(self) -> None:
        """Takes no more work from the queue; a call that runs goes on in its thread."""
        if self._worker is not None:
            self._worker.cancel()
        for job in self._waiting:
            job.answer.cancel()
        self._waiting.clear()

    @property
    def searching(self) -> bool:
        """Whether a call into the engine runs."""
        return self._calls > 0

    async def _ask(self, shape: _Shape, queries: Sequence[str], golds: _Golds) -> Partial[object]:
        if not queries:
            return Partial([])
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(shape=shape, queries=queries, golds=golds, answer=answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while batch := self._next_batch():
            now = time.monotonic()
            for job in batch:
                self._metrics.waited(now - job.since)
            await self._answer(batch)

    def _next_batch(self) -> list[_Job]:
        """The job that waits longest, and jobs of its shape as far as they fit, in order."""
        self._waiting = [job for job in self._waiting if not job.answer.done()]
        batch: list[_Job] = []
        left: list[_Job] = []
        room = self._max_queries
        for job in self._waiting:
            fits = not batch or (job.shape == batch[0].shape and len(job.queries) <= room)
            (batch if fits else left).append(job)
            room -= len(job.queries) if fits else 0
        self._waiting = left
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        """Searches a batch. Where that fails, its halves, down to the request that is at fault."""
        batch = [job for job in batch if not job.answer.done()]
        if not batch:
            return
        queries = [query for job in batch for query in job.queries]
        start = time.monotonic()
        call = asyncio.get_running_loop().run_in_executor(
            self._thread, self._call_of(batch[0].shape, batch, queries)
        )
        await asyncio.wait([call])
        self._metrics.searched(len(batch), len(queries), time.monotonic() - start)
        if error := call.exception():
            nobodys_fault = isinstance(error, DegradedError | IndexChangedError)
            if len(batch) == 1 or nobodys_fault:
                for job in batch:
                    _fail(job, error)
                return
            half = len(batch) // 2
            await self._answer(batch[:half])
            await self._answer(batch[half:])
            return
        answer, place = call.result(), 0
        found = answer.entries
        for job in batch:
            part = found[place : place + len(job.queries)]
            place += len(job.queries)
            if len(found) != len(queries):
                _fail(job, EngineError(f"{len(found)} results for {len(queries)} queries"))
            elif not job.answer.done():
                job.answer.set_result(Partial(part, answer.coverage))

    def _call_of(
        self, shape: _Shape, batch: list[_Job], queries: list[str]
    ) -> Callable[[], Partial[object]]:
        golds = [ids for job in batch for ids in job.golds]

        def call() -> Partial[object]:
            self._calls += 1  # only this thread writes it
            try:
                engine = self._engine
                if shape.max_length is not None and isinstance(engine, QueryLengthSettable):
                    engine = engine.with_query_length(shape.max_length)
                return self._guard(lambda: _search(engine, shape, queries, golds))
            finally:
                self._calls -= 1

        return call


def _search(engine: Retriever, shape: _Shape, queries: list[str], golds: _Golds) -> Partial[object]:
    if isinstance(engine, PartlyAnswering):
        if shape.wants_ranks:
            ranked = engine.partial_ranks(queries, golds, shape.topk)
            return Partial([*ranked.entries], ranked.coverage)
        listed = engine.partial_search(queries, shape.topk)
        return Partial([*listed.entries], listed.coverage)
    if shape.wants_ranks:
        return Partial([*engine.ranks(queries, golds, shape.topk)])
    return Partial([*engine.search(queries, shape.topk)])


def _fail(job: _Job, error: BaseException) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
