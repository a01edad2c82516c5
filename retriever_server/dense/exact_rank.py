"""Exact ranks from inexact matrix products, by an error bound that is proven.

The score of a pair is s = <q, x>: q the query in float32, x the passage's vector as it is stored,
summed in double precision in one fixed order. A filter computes p, a rounded <q', x> for all
passages, where q' is q in the filter's number format. Let g be the score of the gold passage, m any
fixed vector (the mean of the passages), e = |q - q'|, R >= |x - m| and L >= |x| for the passages of
a block. In exact arithmetic

    <q, x> = <q', x> + <q - q', m> + <q - q', x - m>,

where the second term is one known number for each query, and the third at most e R by
Cauchy-Schwarz. Embeddings lie around their mean, so R is much less than L and the bound narrow. The
filter's sum over D terms, in any order, with or without fused multiply-add, errs by at most

    gamma_n |q'||x| <= gamma_n |q'| L,   gamma_n = n u / (1 - n u),

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1, with Cauchy-Schwarz
for the sum of absolute products), u the unit roundoff of its accumulator: 2^-24 in float32. Tensor
cores of NVIDIA truncate while they align (Fasi, Higham, Mikaitis, Pranesh 2021; error analysis in
Blanchard, Higham, Lopez, Mary, Pranesh 2020), for which 2^-22 is assumed. Results below the normal
numbers may be flushed to zero; `filters.UNDERFLOW` bounds what that takes. Where the filter
subtracts an offset o before its last rounding, one more operation adds gamma_n |o|. If the output
is rounded to another format afterwards, nothing is added to the bound: rounding is monotone, so the
thresholds are rounded to that format too, and v > round(T) implies p > T.

A filter may round the passages too and multiply with x' instead of x. Then |q'||x - x'| is added,
with the largest |x - x'| of the block (`Block.left_out`), and L bounds |x'|. `byte_filter` says
what stands for q, x and m where the numbers are bytes.

Hence a product above the upper threshold is certainly better than the gold, one below the lower
certainly not, and what lies between is scored again by the definition. The gold passage itself
always lies between; its score then equals g, and so it does not compete with itself. Before that,
filters on the processor look again at what lies between, with the stored numbers and the query in
float32, where e is 0; for those on GPUs the queries with much in doubt take a finer filter. So the
count never depends on the filter, on blocks, on threads or on the company of other queries.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from convsearch.errors import EngineError
from retriever_server.cores import num_cores
from retriever_server.dense import kernels
from retriever_server.dense.filters import Doubles, Filter, Ints, NumpyFilter, Places, Prepared
from retriever_server.dense.formats import Floats, bits_of
from retriever_server.dense.vectors import Block, Vectors
from retriever_server.parts import Golds

BLOCK_ROWS = 8192
LARGEST_BLOCK = 32_768
"""What threads that share one filter take at once: between two blocks each holds the interpreter,
and all others wait, for 0.6 ms (1,024 queries)."""
_BLOCKS_OF_A_THREAD = 8
"""At least, so that all end at nearly the same time."""
MAX_QUERIES = 2048
"""Queries of one matrix product: beyond it, products outgrow the caches and nothing is won."""
LARGEST_SCORE = 1e37
"""Where single precision is near its end, and the bounds with it."""
_MANY_NEAR = 0.02
"""Share of a block in doubt from which a finer product is cheaper than scoring pair by pair, where
there are some such queries."""
_NONE = np.empty(0, dtype=np.intp)
_KEPT = 0.8
"""Queries are packed together once fewer than this share of them still count."""


def check_range(queries_QD: Doubles, vectors: Vectors) -> None:
    """Raises EngineError where single precision, and the bounds with it, may come to an end."""
    longest = float(np.linalg.norm(queries_QD, axis=1).max(initial=0.0))
    if longest * max(1.0, vectors.longest) > LARGEST_SCORE:
        raise EngineError(
            f"queries up to {longest:.0e} long and scores up to {longest * vectors.longest:.0e} do "
            "not fit into float32; the encoder's weights are broken"
        )


def split(blocks: Sequence[Block], parts: int) -> list[Sequence[Block]]:
    """Runs of blocks of nearly equal number, one for each device."""
    edges = [len(blocks) * part // parts for part in range(parts + 1)]
    return [blocks[first:last] for first, last in itertools.pairwise(edges)]


def crowded(near_P: Ints, block: Block) -> Places:
    """The queries that a finer filter should be asked about; none where scoring them pair by pair
    is cheaper."""
    many = near_P > max(1.0, _MANY_NEAR * len(block.raw_BD))
    return np.flatnonzero(many) if near_P[many].sum() > len(block.raw_BD) else _NONE


class _Call:
    """The queries of one call, and what all devices together have counted for them so far."""

    def __init__(self, queries_QD: Floats, golds: Golds, topk: int) -> None:
        self.queries_QD, self.golds, self.topk = queries_QD, golds, topk
        self.doubles_QD = queries_QD.astype(np.float64)
        self.counts_Q = np.zeros(len(queries_QD), dtype=np.int64)
        self._lock = threading.Lock()

    def add(self, places: Places, counts: Ints) -> Ints:
        """How many more it takes until each of these queries has topk."""
        with self._lock:
            self.counts_Q[places] += counts
            return self.topk - self.counts_Q[places]


class RankEngine:
    """Counts what comes before a gold passage. Safe for threads."""

    def __init__(
        self,
        vectors: Vectors,
        id_order_N: npt.NDArray[np.integer],
        filters: Sequence[Filter] = (),
        *,
        threads: int | None = None,
    ) -> None:
        """id_order_N: for each position its place among all ids sorted ascending.

        filters: one for each device or core, which share the blocks evenly; without any, float32 on
        the CPU. threads: by default one for each core.
        """
        self.vectors = vectors
        self.id_order_N = id_order_N
        self.threads = threads or num_cores()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="dense-rank")
        self.filters = list(filters) or [NumpyFilter()]
        self.devices = ThreadPoolExecutor(len(self.filters), thread_name_prefix="dense-device")

    @property
    def block_rows(self) -> int:
        """Rows that a filter takes at once."""
        rows, lanes = BLOCK_ROWS, len(self.filters)
        if lanes == 1 or len(set(self.filters)) > 1:  # devices hold blocks of this size
            return rows
        while 2 * rows <= min(
            LARGEST_BLOCK, self.vectors.rows.size // (_BLOCKS_OF_A_THREAD * lanes)
        ):
            rows *= 2
        return rows

    def best(self, query_D: Floats, golds: Sequence[int]) -> tuple[float, int]:
        """Score and place in id order of the best of these positions."""
        positions = np.asarray(golds, dtype=np.int64)
        scores = self.vectors.scores(query_D, positions)
        order = np.asarray(self.id_order_N[positions])
        first = np.lexsort((order, -scores))[0]
        return float(scores[first]), int(order[first])

    def count_before(self, queries_QD: Floats, golds: Golds, topk: int) -> Ints:
        """How many passages come before the gold of each query, exactly below topk; what has topk
        or more ends at some number of topk or more."""
        call = _Call(queries_QD, golds, topk)
        check_range(call.doubles_QD, self.vectors)
        parts = split(list(self.vectors.blocks(self.block_rows)), len(self.filters))
        for first in range(0, len(queries_QD), MAX_QUERIES):
            places = np.arange(first, min(first + MAX_QUERIES, len(queries_QD)))
            different = list(dict.fromkeys(self.filters))
            ready = self.devices.map(partial(self._prepare, call, places), different)
            prepared = dict(zip(different, ready, strict=True))
            waiting = [
                self.devices.submit(self._count, by, part, call, places, prepared[by])
                for by, part in zip(self.filters, parts, strict=True)
                if part
            ]
            for job in waiting:
                job.result()
        return call.counts_Q

    def share(self, items: int) -> Iterator[tuple[int, int]]:
        """Splits a number of items among the threads: (first, last) of each part."""
        step = max(1, -(-items // self.threads))
        return ((first, min(first + step, items)) for first in range(0, items, step))

    def _count(
        self, by: Filter, blocks: Sequence[Block], call: _Call, places: Places, prepared: Prepared
    ) -> None:
        """Counts in some of the blocks, for the queries at these places."""
        counts_P = np.zeros(len(places), dtype=np.int64)
        for block in blocks:
            room_P = call.add(places, counts_P)
            still = np.flatnonzero(room_P > 0)
            if not len(still):
                return
            if len(still) < _KEPT * len(places):
                places, room_P, prepared = places[still], room_P[still], prepared.pick(still)
            counts_P = self._count_in(by, block, prepared, call, places, room_P)
        call.add(places, counts_P)

    def _prepare(self, call: _Call, places: Places, by: Filter) -> Prepared:
        return by.prepare(call.queries_QD[places], self.vectors, call.golds.score_Q[places])

    def _count_in(
        self, by: Filter, block: Block, prepared: Prepared, call: _Call, places: Places,
        room_P: Ints,
    ) -> Ints:  # fmt: skip
        """What of one block comes before the gold of each query, exactly below room_P."""
        products = by.products(prepared, block, call.golds.score_Q[places])
        counts_P, near_P = products.count(self.pool, self.share)
        near_P = np.where(counts_P < room_P, near_P, 0)
        retried = crowded(near_P, block)
        if by.finer is not None and len(retried):
            again = self._prepare(call, places[retried], by.finer)
            counts_P[retried] = self._count_in(
                by.finer, block, again, call, places[retried], room_P[retried]
            )
            near_P[retried] = 0
        queries = np.flatnonzero(near_P)
        if len(queries):
            starts = np.concatenate(([0], np.cumsum(near_P[queries])))
            columns = products.near_columns(queries, starts)
            counts_P[queries] += self._settle(columns, starts, block, call, places[queries])
        return counts_P

    def _settle(
        self, columns: Ints, starts: Ints, block: Block, call: _Call, places: Places
    ) -> Ints:  # fmt: skip
        """How many of the rows in doubt come before the gold, by their exact scores.

        columns: rows of the block, of one query after another; starts: where each begins.
        """
        before = np.zeros(len(places), dtype=np.int64)
        order_B = np.asarray(
            self.id_order_N[block.first : block.first + len(block.raw_BD)], dtype=np.int64
        )
        bits_BD, golds = bits_of(block.raw_BD), call.golds
        # more parts than threads: some queries have many times the pairs of others
        parts = 8 * self.threads if self.threads > len(self.filters) else 1
        edges = np.searchsorted(starts, np.linspace(0, starts[-1], parts + 1))
        edges[0], edges[-1] = 0, len(places)

        def count(first: int, last: int) -> None:
            kernels.count_before(
                bits_BD, self.vectors.code, call.doubles_QD, places, starts, columns,
                golds.score_Q, golds.order_Q, order_B, first, last, before,
            )  # fmt: skip

        if parts == 1:
            count(0, len(places))
        else:
            list(self.pool.map(count, edges[:-1].tolist(), edges[1:].tolist()))
        return before
