"""A `Retriever` over shards: it asks all of them and adds up what they answer.

Whatever depends on the index as a whole is done here, once: terms and their weights, vectors of
queries, scores of gold passages. Shards count and list their own passages. So every figure is the
one that a single process computes.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from convsearch.errors import RetrieverError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.types import Hit, Passage
from retriever_server.batching import QueryLengthSettable, device_of
from retriever_server.parts import (
    DegradedError,
    Part,
    Partial,
    Rows,
    Whole,
    merged,
    ranks_from,
    whole,
)

Answer = TypeVar("Answer")


class ShardError(RetrieverError):
    """A shard does not answer. Its passages are missing until it is back."""


def _always() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One part, wherever it runs."""

    rows: Rows
    """The passages it holds."""
    part: Part
    """Raises ShardError where it does not answer."""
    is_up: Callable[[], bool] = _always
    """Whether it is expected to answer."""


class ShardedBackend:
    """A `Retriever` that is also `PartlyAnswering`. Safe for threads.

    `ranks` and `search` raise DegradedError while a shard is missing.
    """

    def __init__(self, engine: Whole, shards: Sequence[Shard]) -> None:
        """engine: over the whole index; only its queries, gold scores and passages are used.
        shards: that together hold each of its passages once."""
        self.info = engine.info
        self.store = engine.store
        self._engine = engine
        self._shards = shards
        self._pool = ThreadPoolExecutor(len(shards), thread_name_prefix="shards")

    def with_query_length(self, max_length: int) -> "ShardedBackend":
        """The same with another cut of queries, where the engine cuts them."""
        if not isinstance(self._engine, QueryLengthSettable):
            return self
        other = copy.copy(self)
        other._engine = self._engine.with_query_length(max_length)  # pyright: ignore
        return other

    @property
    def device(self) -> str:
        """Of the query encoder; shards have processes of their own."""
        return device_of(self._engine)

    @property
    def coverage(self) -> float:
        """Share of the passages whose shards are up."""
        return self._share_of([shard for shard in self._shards if shard.is_up()])

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`. Raises DegradedError where a shard is missing."""
        return whole(self.partial_ranks(queries, golds, topk))

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`. Raises DegradedError where a shard is missing."""
        return whole(self.partial_search(queries, topk))

    def partial_ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> Partial[int | None]:
        """See `PartlyAnswering`. Raises DegradedError where all shards are missing."""
        check_rank_call(queries, golds, topk)
        asked = self._engine.asked(queries)
        best = self._engine.best_golds(asked, golds)
        counts, coverage = self._gather(lambda part: part.count_before(asked, best, topk))
        return Partial(ranks_from(counts, topk), coverage)

    def partial_search(self, queries: Sequence[str], topk: int) -> Partial[list[Hit]]:
        """See `PartlyAnswering`. Raises DegradedError where all shards are missing."""
        check_topk(topk)
        asked = self._engine.asked(queries)
        lists, coverage = self._gather(lambda part: part.best(asked, topk))
        found = [merged(own, self.store.id_order_N, topk) for own in zip(*lists, strict=True)]
        return Partial(self._engine.hits(found), coverage)

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`; needs no shard."""
        return self._engine.passages(doc_ids)

    def _gather(self, ask: Callable[[Part], Answer]) -> tuple[list[Answer], float]:
        """Answers of the shards that answer, at least one, and the share of their passages."""
        jobs = [(shard, self._pool.submit(ask, shard.part)) for shard in self._shards]
        answers: list[Answer] = []
        answered: list[Shard] = []
        for shard, job in jobs:
            try:
                answers.append(job.result())
            except ShardError:
                continue
            answered.append(shard)
        if not answers:
            raise DegradedError(0.0)
        return answers, self._share_of(answered)

    def _share_of(self, shards: Sequence[Shard]) -> float:
        if len(shards) == len(self._shards):
            return 1.0
        return sum(shard.rows.size for shard in shards) / len(self.store)
