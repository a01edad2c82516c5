"""Exact top lists with the filters of exact ranking: each block lists what can still be in them.

The last score of the best topk so far is a bar: a passage below it cannot enter. A filter lists the
rows of a block whose product is not certainly below (`filters.thresholds`), these are scored by
the definition, and the bar rises. After b blocks some topk / b rows of the next one pass, so about
topk ln(N) of N passages are scored exactly. The first block, which has no bar, is taken in pieces
that double. All cores or devices share the bar, and keep lists of their own until the end.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from retriever_server.dense import kernels
from retriever_server.dense.exact_rank import (
    LARGEST_SCORE,
    RankEngine,
    check_range,
    split,
)
from retriever_server.dense.filters import Doubles, Filter, Prepared
from retriever_server.dense.formats import Floats, bits_of
from retriever_server.dense.lists import TopList
from retriever_server.dense.vectors import Block

_FIRST_ROWS = 256
_ROOM_BYTES = 2**29
"""Of all lists in making; more queries than fit are taken one part after another."""
_ENTRY_BYTES = 24


class _Best:
    """The best passages of each query so far, among those that one thread has seen."""

    def __init__(self, num_queries: int, depth: int) -> None:
        self.sizes_Q = np.zeros(num_queries, dtype=np.int64)
        self.scores_QK = np.empty((num_queries, depth))
        self.orders_QK = np.empty((num_queries, depth), dtype=np.int64)
        self.positions_QK = np.empty((num_queries, depth), dtype=np.int64)

    def copy(self) -> "_Best":
        """What another thread goes on from."""
        other = _Best(0, 0)
        for name, value in vars(self).items():
            setattr(other, name, np.copy(value) if isinstance(value, np.ndarray) else value)
        return other

    @property
    def bar_Q(self) -> Doubles:
        """What a passage must reach; below every score where there are too few yet."""
        full_Q = self.sizes_Q == self.scores_QK.shape[1]
        return np.where(full_Q, self.scores_QK[:, 0], -LARGEST_SCORE)


class _Call:
    """The queries of one call, and the bar that all threads together have found."""

    def __init__(self, queries_QD: Floats, depth: int) -> None:
        self.queries_QD, self.depth = queries_QD, depth
        self.doubles_QD = queries_QD.astype(np.float64)
        self.bar_Q = np.full(len(queries_QD), -LARGEST_SCORE)
        self._lock = threading.Lock()

    def raise_bar(self, bar_Q: Doubles) -> None:
        """To what one thread has found, where that is higher."""
        with self._lock:
            np.maximum(self.bar_Q, bar_Q, out=self.bar_Q)


class ThresholdLists:
    """See `part.Lists`. Safe for threads."""

    def __init__(self, engine: RankEngine) -> None:
        """engine: whose vectors, filters and threads are used."""
        self._engine = engine

    def top_lists(
        self, id_order_N: npt.NDArray[np.integer], queries_QD: Floats, topk: int
    ) -> list[TopList]:
        """See `lists.top_lists`."""
        engine = self._engine
        check_range(queries_QD.astype(np.float64), engine.vectors)
        depth = min(topk, engine.vectors.rows.size)
        if not depth:
            return [(np.empty(0, dtype=np.int64), np.empty(0)) for _ in queries_QD]
        step = max(1, _ROOM_BYTES // (_ENTRY_BYTES * depth * (len(engine.filters) + 1)))
        found: list[TopList] = []
        for first in range(0, len(queries_QD), step):
            found += self._lists(id_order_N, _Call(queries_QD[first : first + step], depth))
        return found

    def _lists(self, id_order_N: npt.NDArray[np.integer], call: _Call) -> list[TopList]:
        engine, num_queries = self._engine, len(call.queries_QD)
        first, *rest = engine.vectors.blocks(engine.block_rows)
        prepared = {
            by: by.prepare(call.queries_QD, engine.vectors, call.bar_Q)
            for by in set(engine.filters)
        }
        by, best = engine.filters[0], _Best(num_queries, call.depth)
        for piece in _pieces(first):
            self._add(by, piece, prepared[by], id_order_N, call, best, engine.threads)
        waiting = [
            engine.devices.submit(self._take, by, part, prepared[by], id_order_N, call, best.copy())
            for by, part in zip(engine.filters, split(rest, len(engine.filters)), strict=True)
            if part
        ]
        kept = [job.result() for job in waiting] or [best]
        return [_merged(kept, query, call.depth) for query in range(num_queries)]

    def _take(
        self, by: Filter, blocks: Sequence[Block], prepared: Prepared,
        id_order_N: npt.NDArray[np.integer], call: _Call, best: _Best,
    ) -> _Best:  # fmt: skip
        threads = max(1, self._engine.threads // len(self._engine.filters))
        for block in blocks:
            self._add(by, block, prepared, id_order_N, call, best, threads)
        return best

    def _add(
        self, by: Filter, block: Block, prepared: Prepared, id_order_N: npt.NDArray[np.integer],
        call: _Call, best: _Best, threads: int,
    ) -> None:  # fmt: skip
        """Takes what of a block reaches the bar into the best."""
        end = block.first + len(block.raw_BD)
        order_B = np.asarray(id_order_N[block.first : end], dtype=np.int64)
        products = by.products(prepared, block, call.bar_Q, listing=True)
        _, near_Q = products.count(self._engine.pool, self._engine.share)
        queries = np.flatnonzero(near_Q)
        starts = np.concatenate(([0], np.cumsum(near_Q[queries])))
        columns = products.near_columns(queries, starts)
        edges = np.linspace(0, len(queries), threads + 1).astype(int).tolist()
        keep = partial(
            kernels.keep_best, bits_of(block.raw_BD), self._engine.vectors.code, call.doubles_QD,
            queries, starts, columns, order_B, block.first, best.sizes_Q, best.scores_QK,
            best.orders_QK, best.positions_QK,
        )  # fmt: skip
        if threads == 1:
            keep(0, len(queries))
        else:
            list(self._engine.pool.map(keep, edges[:-1], edges[1:]))
        call.raise_bar(best.bar_Q)


def _pieces(block: Block) -> Iterator[Block]:
    """A block in pieces, each as long as all before it together."""
    first, rows = 0, _FIRST_ROWS
    while first < len(block.raw_BD):
        raw_BD = block.raw_BD[first : max(2 * first, rows)]
        yield replace(block, first=block.first + first, raw_BD=raw_BD)
        first += len(raw_BD)


def _merged(kept: Sequence[_Best], query: int, depth: int) -> TopList:
    """The list of a query, from what each thread has of it; what all began with is in each."""
    parts = [(best, slice(best.sizes_Q[query])) for best in kept]
    scores = np.concatenate([best.scores_QK[query, part] for best, part in parts])
    orders = np.concatenate([best.orders_QK[query, part] for best, part in parts])
    positions = np.concatenate([best.positions_QK[query, part] for best, part in parts])
    order = np.lexsort((orders, -scores))
    order = order[np.diff(orders[order], prepend=-1) != 0][:depth]
    return positions[order], scores[order]
