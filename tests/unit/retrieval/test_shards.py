"""Shards put together: sums of counts, merged lists, and what a missing one does."""

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsearch.errors import ConfigError
from convsearch.network.retries import TransientError
from convsearch.retrieval.async_client import AsyncRetrieverClient
from convsearch.retrieval.info import IndexInfo
from convsearch.retrieval.questions import conversation, search_questions
from convsearch.retrieval.transport import Reply, Source, read_reply
from convsearch.types import Hit, Passage
from retriever_server.batching import SearchQueue
from retriever_server.metrics import Metrics
from retriever_server.parts import DegradedError, Found, Golds, Ints, Rows, even_rows
from retriever_server.settings import ShardSettings, sharding_of
from retriever_server.shards.backend import Shard, ShardedBackend, ShardError


class _Ids:
    """The ids of a store: `d0`, `d1` and on, in an order of their own."""

    def __init__(self, order: Sequence[int]) -> None:
        self.id_order_N = np.asarray(order, dtype=np.int32)
        self.folder = Path("index")

    def __len__(self) -> int:
        return len(self.id_order_N)


class _Table:
    """A `Whole` whose query is a row of a table of scores; 0 does not match."""

    def __init__(self, scores: Sequence[Sequence[int]], order: Sequence[int]) -> None:
        self.scores_QN = np.asarray(scores, dtype=np.float64)
        self.store = _Ids(order)
        self.info = IndexInfo(engine="table", num_passages=len(order), fingerprint="t")

    def asked(self, queries: Sequence[str]) -> list[int]:
        return [int(query) for query in queries]

    def best_golds(self, asked: list[int], golds: Sequence[Sequence[str]]) -> Golds:
        order = self.store.id_order_N
        best = [
            min(
                ((-self.scores_QN[q, int(doc[1:])], order[int(doc[1:])]) for doc in ids),
            )
            for q, ids in zip(asked, golds, strict=True)
        ]
        return Golds(
            score_Q=np.asarray([-score for score, _ in best]),
            order_Q=np.asarray([place for _, place in best], dtype=np.int64),
        )

    def hits(self, found: Sequence[Found]) -> list[list[Hit]]:
        return [
            [Hit(doc_id=f"d{at}", score=float(s)) for at, s in zip(*one, strict=True)]
            for one in found
        ]

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        raise NotImplementedError

    def ranking(self, query: int) -> list[int]:
        scores = self.scores_QN[query]
        order = np.lexsort((self.store.id_order_N, -scores))
        return [int(at) for at in order if scores[at] > 0]


class _Slice:
    """A `Part` of such a table. As the engines, it stops counting somewhere from topk on."""

    def __init__(self, table: _Table, rows: Rows) -> None:
        self._table, self._rows = table, range(*rows)
        self.down = False

    def _own(self, query: int) -> list[int]:
        if self.down:
            raise ShardError("down")
        return [at for at in self._table.ranking(query) if at in self._rows]

    def count_before(self, asked: list[int], golds: Golds, topk: int) -> Ints:
        counts = []
        for q, score, place in zip(asked, golds.score_Q, golds.order_Q, strict=True):
            keys = [
                (-self._table.scores_QN[q, at], self._table.store.id_order_N[at])
                for at in self._own(q)
            ]
            before = sum(key < (-score, place) for key in keys)
            counts.append(min(before, topk + 1) if score > 0 else topk)
        return np.asarray(counts, dtype=np.int64)

    def best(self, asked: list[int], topk: int) -> list[Found]:
        own = [self._own(q)[:topk] for q in asked]
        return [
            Found(np.asarray(at, dtype=np.int64), self._table.scores_QN[q, at])
            for q, at in zip(asked, own, strict=True)
        ]


def sharded(table: _Table, rows: Sequence[Rows]) -> tuple[ShardedBackend, list[_Slice]]:
    parts = [_Slice(table, own) for own in rows]
    shards = [
        Shard(rows=own, part=part, is_up=lambda part=part: not part.down)
        for own, part in zip(rows, parts, strict=True)
    ]
    return ShardedBackend(table, shards), parts  # pyright: ignore[reportArgumentType]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_gives_the_ranks_and_lists_of_the_whole(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    scores = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=size, max_size=size),
                                min_size=1, max_size=3))  # fmt: skip
    table = _Table(scores, data.draw(st.permutations(range(size))))
    edges = sorted(data.draw(st.sets(st.integers(1, size), max_size=4)) | {0, size})
    backend, _ = sharded(table, [Rows(*pair) for pair in itertools.pairwise(edges)])
    topk = data.draw(st.integers(1, size + 1))
    golds = [[f"d{data.draw(st.integers(0, size - 1))}"] for _ in scores]
    queries = [str(q) for q in range(len(scores))]
    ranks = backend.ranks(queries, golds, topk)
    for q, rank in enumerate(ranks):
        ranked = [f"d{at}" for at in table.ranking(q)][:topk]
        assert rank == (ranked.index(golds[q][0]) + 1 if golds[q][0] in ranked else None)
    for q, hits in enumerate(backend.search(queries, topk)):
        assert [hit.doc_id for hit in hits] == [f"d{at}" for at in table.ranking(q)][:topk]
    assert backend.coverage == 1.0


def test_cuts_are_even_and_lose_nothing() -> None:
    rows = even_rows(np.arange(0, 20_500, 4096), 20_500, 4)
    assert rows == [(0, 4096), (4096, 12_288), (12_288, 16_384), (16_384, 20_500)]
    assert sum(one.size for one in rows) == 20_500


def test_a_missing_shard_is_never_a_whole_answer() -> None:
    backend, parts = sharded(_Table([[3, 2, 1, 1]], range(4)), [Rows(0, 1), Rows(1, 4)])
    assert backend.ranks(["0"], [["d2"]], 9) == [3]
    parts[0].down = True
    assert backend.coverage == 0.75
    with pytest.raises(DegradedError, match="only 75 % of the passages"):
        backend.ranks(["0"], [["d2"]], 9)
    partial = backend.partial_ranks(["0"], [["d2"]], 9)
    assert (partial.entries, partial.coverage) == ([2], 0.75)
    found = backend.partial_search(["0"], 2)
    assert [hit.doc_id for hit in found.entries[0]] == ["d1", "d2"]
    parts[1].down = True
    with pytest.raises(DegradedError, match="only 0 %"):
        backend.partial_search(["0"], 2)
    parts[0].down = parts[1].down = False
    assert backend.ranks(["0"], [["d2"]], 9) == [3]


def test_the_queue_hands_coverage_to_each_request() -> None:
    backend, parts = sharded(_Table([[3, 2, 1, 1]], range(4)), [Rows(0, 1), Rows(1, 4)])
    parts[0].down = True

    async def ask() -> None:
        with ThreadPoolExecutor(1) as thread:
            queue = SearchQueue(backend, thread, max_queries=9, metrics=Metrics().queue("default"))
            answers = await asyncio.gather(
                *(queue.partial_ranks(["0"], [["d2"]], 9) for _ in range(3)),
                queue.ranks(["0"], [["d2"]], 9),
                return_exceptions=True,
            )
            queue.close()
        assert [(a.entries, a.coverage) for a in answers[:3]] == 3 * [([2], 0.75)]  # pyright: ignore
        assert isinstance(answers[3], DegradedError)

    asyncio.run(ask())


def _answer(status: int, **body: object) -> httpx.Response:
    return httpx.Response(
        status, json=body, request=httpx.Request("POST", "http://h/retrieve"),
        headers={"Retry-After": "1"} if status == 503 else {},
    )  # fmt: skip


def test_clients_refuse_a_degraded_answer_for_now() -> None:
    degraded = _answer(200, result=[1], degraded=True, coverage=0.75)
    with pytest.raises(TransientError, match="from 75 % of the passages") as refused:
        read_reply(degraded, 1)
    assert refused.value.retry_after_s == 1
    assert read_reply(degraded, 1, allow_degraded=True).coverage == 0.75
    with pytest.raises(TransientError, match="shards are missing"):
        read_reply(_answer(503, error="shards are missing", degraded=True, coverage=0.5), 1)
    assert read_reply(_answer(200, result=[1]), 1).coverage == 1


def test_only_lists_may_be_degraded() -> None:
    talk = conversation(search_questions(["a"], 3, allow_degraded=True), url="u", cache=None)
    asked = next(talk)
    assert asked.allow_degraded
    assert asked.body is not None
    assert asked.body["allow_degraded"] is True
    with pytest.raises(StopIteration):
        talk.send(Reply(result=[[]], source=Source("f"), coverage=0.5))
    client = AsyncRetrieverClient("http://h", allow_degraded=True, attempts=1, timeout_s=9)
    sent: list[bytes] = []

    async def ask() -> list[int | None]:
        await client.aclose()

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request.content)
            return httpx.Response(200, json={"result": [1]})

        client._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        return await client.ranks(["a"], [["d"]], 9)

    assert asyncio.run(ask()) == [1]
    assert b"allow_degraded" not in sent[0]


def test_flags_of_shards_are_checked() -> None:
    assert sharding_of(None, None, None, None) is None
    assert sharding_of(4, None, 0.5, "auto") == ShardSettings(
        shards=4, gpus=0.5, ray_address="auto"
    )
    with pytest.raises(ConfigError, match="need --shards"):
        sharding_of(None, 2, None, None)
    with pytest.raises(ConfigError, match="1 or more"):
        sharding_of(0, None, None, None)
