"""The queue in front of an engine: who shares a call, and who pays for whose mistake."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from convsearch.errors import DataError, EngineError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Hit, Passage
from retriever_server.batching import SearchQueue
from retriever_server.metrics import Metrics

PASSAGES = [Passage(doc_id=f"d{i}", title="", text=f"word{i} common") for i in range(20)]


class Recorder(InMemoryRetriever):
    """Notes each call and the thread it came from; the first one waits for the gate."""

    def __init__(self) -> None:
        super().__init__(PASSAGES)
        self.calls: list[tuple[str, list[str], int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.running = 0
        self.most_running = 0

    def _note(self, kind: str, queries: list[str], topk: int) -> None:
        self.calls.append((kind, list(queries), topk))
        self.threads.add(threading.get_ident())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        assert self.gate.wait(30)
        self.running -= 1

    def ranks(self, queries, golds, topk):
        self._note("ranks", queries, topk)
        return super().ranks(queries, golds, topk)

    def search(self, queries, topk):
        self._note("search", queries, topk)
        return super().search(queries, topk)


@pytest.fixture
def engine() -> Recorder:
    return Recorder()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def queue_of(
    engine: InMemoryRetriever, thread: ThreadPoolExecutor, max_queries: int = 2048
) -> SearchQueue:
    return SearchQueue(engine, thread, max_queries=max_queries, metrics=Metrics().queue("default"))


async def gathered(engine: Recorder, *calls: Callable[[], Awaitable[object]]) -> list[object]:
    """Starts the first call, lets it reach the engine, queues the others, opens the gate."""
    tasks = [asyncio.ensure_future(calls[0]())]
    while not engine.calls:
        await asyncio.sleep(0.001)
    tasks += [asyncio.ensure_future(call()) for call in calls[1:]]
    await asyncio.sleep(0.01)
    engine.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_together_is_searched_together_and_answered_apart(
    engine: Recorder, thread: ThreadPoolExecutor
) -> None:
    queue = queue_of(engine, thread)
    asks = [([f"word{i}", "common"], [[f"d{i}"], [f"d{i}"]]) for i in range(8)]
    answers = asyncio.run(gathered(engine, *(lambda a=ask: queue.ranks(*a, 20) for ask in asks)))
    assert [len(queries) for _, queries, _ in engine.calls] == [2, 14]
    assert answers == [InMemoryRetriever(PASSAGES).ranks(*ask, 20) for ask in asks]
    assert len({rank for ranks in answers for rank in ranks}) > 3
    assert (len(engine.threads), engine.most_running) == (1, 1)


def test_other_kinds_and_depths_go_in_calls_of_their_own(
    engine: Recorder, thread: ThreadPoolExecutor
) -> None:
    queue = queue_of(engine, thread)
    answers = asyncio.run(
        gathered(
            engine,
            lambda: queue.search(["common"], 1),
            lambda: queue.search(["word1"], 3),
            lambda: queue.ranks(["word2"], [["d2"]], 3),
            lambda: queue.search(["word3"], 3),
        )
    )
    assert engine.calls == [
        ("search", ["common"], 1),
        ("search", ["word1", "word3"], 3),
        ("ranks", ["word2"], 3),
    ]
    hits = answers[3]
    assert isinstance(hits, list)
    assert [hit.doc_id for [hit] in hits] == ["d3"]


def test_a_batch_is_bounded_and_keeps_the_order(
    engine: Recorder, thread: ThreadPoolExecutor
) -> None:
    queue = queue_of(engine, thread, max_queries=4)
    sizes = [1, 3, 2, 9, 1, 1]
    answers = asyncio.run(
        gathered(engine, *(lambda n=n: queue.search(["common"] * n, 5) for n in sizes))
    )
    # 3 + 1 (the lone ones fit), then 2 + 1, then the 9 that are one request
    assert [len(queries) for _, queries, _ in engine.calls] == [1, 4, 3, 9]
    assert [len(answer) for answer in answers] == sizes


def test_an_unknown_gold_id_is_the_mistake_of_one_request(
    engine: Recorder, thread: ThreadPoolExecutor
) -> None:
    queue = queue_of(engine, thread)
    golds = [["d0"], ["d1"], ["nowhere"], ["d3"], ["d4"]]
    answers = asyncio.run(
        gathered(engine, *(lambda g=g: queue.ranks(["common"], [g], 20) for g in golds))
    )
    assert [isinstance(answer, DataError) for answer in answers] == [
        False, False, True, False, False,
    ]  # fmt: skip
    assert [answers[i] for i in (0, 1, 3, 4)] == [
        InMemoryRetriever(PASSAGES).ranks(["common"], [golds[i]], 20) for i in (0, 1, 3, 4)
    ]


def test_an_engine_that_loses_answers_is_an_error(thread: ThreadPoolExecutor) -> None:
    class Lossy(InMemoryRetriever):
        def search(self, queries, topk):
            return super().search(queries[:-1], topk)

    queue = queue_of(Lossy(PASSAGES), thread)
    with pytest.raises(EngineError, match="1 results for 2 queries"):
        asyncio.run(queue.search(["a", "b"], 1))


def test_a_cancelled_request_is_not_searched(engine: Recorder, thread: ThreadPoolExecutor) -> None:
    queue = queue_of(engine, thread)

    async def scene() -> list[list[Hit]]:
        first = asyncio.ensure_future(queue.search(["common"], 1))
        while not engine.calls:
            await asyncio.sleep(0.001)
        gone = asyncio.ensure_future(queue.search(["word5"], 1))
        stays = asyncio.ensure_future(queue.search(["word6"], 1))
        await asyncio.sleep(0.01)
        gone.cancel()
        engine.gate.set()
        await first
        return await stays

    assert [hit.doc_id for [hit] in asyncio.run(scene())] == ["d6"]
    assert [queries for _, queries, _ in engine.calls] == [["common"], ["word6"]]


def test_nothing_asked_is_answered_without_the_engine(
    engine: Recorder, thread: ThreadPoolExecutor
) -> None:
    queue = queue_of(engine, thread)
    assert asyncio.run(queue.search([], 3)) == []
    assert engine.calls == []


def test_the_cut_of_queries_is_part_of_the_shape(thread: ThreadPoolExecutor) -> None:
    lengths: list[int | None] = []

    class Cutting(InMemoryRetriever):
        length: int | None = None

        def with_query_length(self, max_length: int) -> "Cutting":
            other = Cutting(PASSAGES)
            other.length = max_length
            return other

        def search(self, queries, topk):
            lengths.append(self.length)
            return super().search(queries, topk)

    queue = queue_of(Cutting(PASSAGES), thread)

    async def scene() -> None:
        await asyncio.gather(
            queue.search(["common"], 1),
            queue.search(["common"], 1, max_length=16),
            queue.search(["common"], 1, max_length=16),
            queue.search(["common"], 1, max_length=32),
        )

    asyncio.run(scene())
    assert lengths == [None, 16, 32]
