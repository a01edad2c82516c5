"""Counting and lists of dense vectors over a run of them."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from retriever_server.dense.byte_filter import ByteFilter
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.flat import flat_lists
from retriever_server.dense.formats import Floats
from retriever_server.dense.lists import TopList, top_lists
from retriever_server.dense.threshold_lists import ThresholdLists
from retriever_server.dense.tile_filter import TileFilter
from retriever_server.parts import Found, Golds, Ints


class DenseQueries(NamedTuple):
    """Queries as vectors. Encoded once for all parts: a second time might round otherwise."""

    num_queries: int
    places: npt.NDArray[np.intp]
    """Positions of the queries that hold a word; the others match nothing."""
    vectors_QD: Floats
    """A row for each of those."""


class Lists(Protocol):
    """Another way to what `lists.top_lists` gives, over the vectors of an engine."""

    def top_lists(
        self, id_order_N: npt.NDArray[np.integer], queries_QD: Floats, topk: int
    ) -> list[TopList]: ...


def choose_lists(engine: RankEngine) -> Lists | None:
    """The fastest way to lists on this machine; None means FAISS on the CPU."""
    on_gpus = flat_lists(engine.vectors)
    if on_gpus is None and isinstance(engine.filters[0], TileFilter | ByteFilter):
        return ThresholdLists(engine)
    return on_gpus


class DensePart:
    """A `Part` of a dense index: the rows that the engine's vectors were opened with."""

    def __init__(self, engine: RankEngine, lists: Lists | None = None) -> None:
        """lists: see `choose_lists`; over the same vectors."""
        self._engine = engine
        self._lists = lists

    def count_before(self, asked: object, golds: Golds, topk: int) -> Ints:
        """See `Part.count_before`. Counts what beats the best gold passage; makes no list."""
        assert isinstance(asked, DenseQueries)
        counts_Q = np.full(asked.num_queries, topk, dtype=np.int64)
        if len(asked.places):
            counts_Q[asked.places] = self._engine.count_before(
                asked.vectors_QD, golds.pick(asked.places), topk
            )
        return counts_Q

    def best(self, asked: object, topk: int) -> list[Found]:
        """See `Part.best`."""
        assert isinstance(asked, DenseQueries)
        nothing = Found(np.empty(0, dtype=np.int64), np.empty(0))
        found = [nothing] * asked.num_queries
        if len(asked.places):
            lists = self._top_lists(asked.vectors_QD, topk)
            for place, best in zip(asked.places.tolist(), lists, strict=True):
                found[place] = Found(*best)
        return found

    def _top_lists(self, queries_QD: Floats, topk: int) -> list[TopList]:
        if self._lists is not None:
            return self._lists.top_lists(self._engine.id_order_N, queries_QD, topk)
        return top_lists(self._engine.vectors, self._engine.id_order_N, queries_QD, topk)
