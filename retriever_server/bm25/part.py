"""Counting and lists of BM25 over a run of blocks. Importing this module needs numba."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retriever_server.bm25.arrays import BLOCK, Bm25Arrays
from retriever_server.bm25.kernels import best_of, count_before, score_golds
from retriever_server.cores import num_cores
from retriever_server.parts import Found, Golds, Ints, Rows

_TASKS_PER_THREAD = 8
"""Pieces a batch is cut into for each thread, so that none waits long for another."""

Weights = npt.NDArray[np.float32]


class Bm25Queries(NamedTuple):
    """Terms of query q at `query_at[q]:query_at[q + 1]`, the least valuable first."""

    terms: Ints
    weights: Weights
    query_at: Ints


class Bm25Part:
    """A `Part` of a BM25 index. Safe for threads; keeps no call."""

    def __init__(
        self,
        arrays: Bm25Arrays,
        inverse_norms: Weights,
        id_order_N: npt.NDArray[np.int32],
        *,
        rows: Rows | None = None,
        threads: int | None = None,
    ) -> None:
        """arrays, inverse_norms, id_order_N: of the whole index. rows: of this part, cut between
        blocks; None is all. threads: that share a batch, by default one for each processor."""
        self._index = arrays, inverse_norms, id_order_N
        first, end = rows or (0, len(arrays.lengths))
        self._rows = first, end
        self._blocks = first // BLOCK, -(-end // BLOCK)
        self._threads = threads or num_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bm25")

    def best_golds(self, asked: Bm25Queries, positions: Ints, golds_at: Ints) -> Golds:
        """The best of the gold passages of each query, wherever in the index they are; score 0
        where none matches. positions: those of query q at `golds_at[q]:golds_at[q + 1]`."""
        scores = np.zeros(len(golds_at) - 1, dtype=np.float32)
        orders = np.zeros(len(golds_at) - 1, dtype=np.int64)

        def score(first: int, last: int) -> None:
            score_golds(*self._index, *asked, positions, golds_at, first, last, scores, orders)

        self._share(score, len(scores))
        return Golds(score_Q=scores.astype(np.float64), order_Q=orders)

    def count_before(self, asked: object, golds: Golds, topk: int) -> Ints:
        """See `Part.count_before`."""
        assert isinstance(asked, Bm25Queries)
        counts = np.zeros(len(golds.order_Q), dtype=np.int64)
        scores = golds.score_Q.astype(np.float32)

        def count(first: int, last: int) -> None:
            count_before(
                *self._index, *asked, scores, golds.order_Q, topk, *self._blocks, first, last,
                counts,
            )  # fmt: skip

        self._share(count, len(counts))
        return counts

    def best(self, asked: object, topk: int) -> list[Found]:
        """See `Part.best`."""
        assert isinstance(asked, Bm25Queries)
        num_queries = len(asked.query_at) - 1
        id_order_N = self._index[2]
        depth = min(topk, self._rows[1] - self._rows[0])
        nothing = Found(np.empty(0, dtype=np.int64), np.empty(0))
        found = [nothing] * num_queries

        def search(first: int, last: int) -> None:
            docs = np.empty(depth, dtype=np.int64)
            scores = np.empty(depth, dtype=np.float32)
            for query in range(first, last):
                own = slice(asked.query_at[query], asked.query_at[query + 1])
                count = best_of(
                    *self._index, asked.terms[own], asked.weights[own], depth, *self._blocks,
                    docs, scores,
                )  # fmt: skip
                order = np.lexsort((id_order_N[docs[:count]], -scores[:count]))
                found[query] = Found(docs[order], scores[order].astype(np.float64))

        self._share(search, num_queries)
        return found

    def _share(self, work: Callable[[int, int], None], num_queries: int) -> None:
        """Runs `work(first, last)` over all queries; what is large, on all threads."""
        step = max(1, -(-num_queries // (self._threads * _TASKS_PER_THREAD)))
        firsts = range(0, num_queries, step)
        if len(firsts) <= 1:
            work(0, num_queries)
            return
        for done in self._pool.map(
            lambda first: work(first, min(first + step, num_queries)), firsts
        ):
            assert done is None
