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
numbers may be flushed to zero; `_UNDERFLOW` bounds what that takes. Where the filter subtracts an
offset o before its last rounding, one more operation adds gamma_n |o|. If the output is rounded to
another format afterwards, nothing is added to the bound: rounding is monotone, so the thresholds
are rounded to that format too, and v > round(T) implies p > T.

Hence a product above the upper threshold is certainly better than the gold, one below the lower
certainly not, and what lies between is scored again by the definition. The gold passage itself
always lies between; its score then equals g, and so it does not compete with itself. Where too many
lie between, the queries concerned take a second filter in float32 first, whose e is 0. So the
count never depends on the filter, on blocks, on threads or on the company of other queries.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from convsearch.errors import EngineError
from retriever_server.cores import num_cores
from retriever_server.dense import kernels
from retriever_server.dense.filters import Filter, NumpyFilter, Prepared, Products, gamma
from retriever_server.dense.formats import Floats, bits_of
from retriever_server.dense.vectors import Block, Vectors
from retriever_server.parts import Doubles, Golds, Ints

BLOCK_ROWS = 8192
MAX_QUERIES = 2048
"""Queries of one matrix product: beyond it, products outgrow the caches and nothing is won."""
_UNDERFLOW = 2.0**-123
"""Per term and unit of length: 8 times the smallest normal float32, for flushed operands, products
and sums."""
_DOUBLE_SLACK = 2.0**-52
_LARGEST_SCORE = 1e37
"""Where single precision is near its end, and the bounds with it."""
_MANY_NEAR = 0.02
"""Share of a block in doubt from which a float32 product is cheaper than scoring pair by pair."""
_KEPT = 0.8
"""Queries are packed together once fewer than this share of them still count."""


def thresholds(
    prepared: Prepared, block: Block, gold_Q: Doubles, dim: int
) -> tuple[Doubles, Doubles]:
    """(low_Q, high_Q) in double precision: a product outside them lies on its side of the gold for
    certain. See the module's proof."""
    terms = dim + 1
    length_Q = prepared.length_Q * block.longest
    slack_Q = (
        prepared.error_Q * block.farthest
        + gamma(terms, prepared.unit) * (length_Q + np.abs(prepared.offset_Q))
        + _UNDERFLOW * terms * (1 + prepared.length_Q) * (1 + block.longest)
    )
    centre_Q = gold_Q - prepared.shift_Q - prepared.offset_Q
    # roundings in double precision: of the exact scores themselves, and of the lines above
    weight_Q = np.abs(gold_Q) + np.abs(prepared.shift_Q) + np.abs(prepared.offset_Q) + length_Q
    slack_Q = slack_Q * (1 + 1e-9) + 4 * terms * _DOUBLE_SLACK * weight_Q
    return centre_Q - slack_Q, centre_Q + slack_Q


def split(blocks: Sequence[Block], parts: int) -> list[Sequence[Block]]:
    """Runs of blocks of nearly equal number, one for each device."""
    edges = [len(blocks) * part // parts for part in range(parts + 1)]
    return [blocks[first:last] for first, last in itertools.pairwise(edges)]


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

        filters: one for each device, which share the blocks evenly; without any, float32 on the
        CPU. threads: by default one for each core.
        """
        self.vectors = vectors
        self.id_order_N = id_order_N
        self._threads = threads or num_cores()
        self.pool = ThreadPoolExecutor(self._threads, thread_name_prefix="dense-rank")
        self._second = NumpyFilter()
        self._filters = list(filters) or [self._second]
        self._devices = ThreadPoolExecutor(len(self._filters), thread_name_prefix="dense-device")

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
        longest = float(np.linalg.norm(queries_QD.astype(np.float64), axis=1).max(initial=0.0))
        if longest * self.vectors.longest > _LARGEST_SCORE:
            raise EngineError(
                f"scores up to {longest * self.vectors.longest:.0e} do not fit into float32; the "
                "encoder's weights are broken"
            )
        counts_Q = np.zeros(len(queries_QD), dtype=np.int64)
        for first in range(0, len(queries_QD), MAX_QUERIES):
            part = slice(first, first + MAX_QUERIES)
            chosen = np.arange(len(queries_QD))[part]
            counts_Q[part] = self._count_on_devices(queries_QD[part], golds.pick(chosen), topk)
        return counts_Q

    def share(self, items: int) -> Iterator[tuple[int, int]]:
        """Splits a number of items among the threads: (first, last) of each part."""
        step = max(1, -(-items // self._threads))
        return ((first, min(first + step, items)) for first in range(0, items, step))

    def _count_on_devices(self, queries_QD: Floats, golds: Golds, topk: int) -> Ints:
        blocks = list(self.vectors.blocks(BLOCK_ROWS))
        if len(self._filters) == 1:
            return self._count(self._filters[0], blocks, queries_QD, golds, topk)
        waiting = [
            self._devices.submit(self._count, by, part, queries_QD, golds, topk)
            for by, part in zip(self._filters, split(blocks, len(self._filters)), strict=True)
        ]
        return np.sum([job.result() for job in waiting], axis=0)

    def _count(
        self, by: Filter, blocks: Sequence[Block], queries_QD: Floats, golds: Golds, topk: int
    ) -> Ints:
        """The count over some of the blocks."""
        total_Q = np.zeros(len(queries_QD), dtype=np.int64)
        active = np.arange(len(queries_QD))
        doubles_QD = queries_QD.astype(np.float64)
        prepared = by.prepare(queries_QD, self.vectors, golds.score_Q)
        for block in blocks:
            total_Q[active] += self._count_in(
                by, block, prepared, queries_QD[active], doubles_QD[active], golds.pick(active)
            )
            open_places = np.flatnonzero(total_Q[active] < topk)
            if not len(open_places):
                break
            if len(open_places) < _KEPT * len(active):
                active, prepared = active[open_places], prepared.pick(open_places)
        return total_Q

    def _count_in(
        self, by: Filter, block: Block, prepared: Prepared, queries_QD: Floats,
        doubles_QD: Doubles, golds: Golds,
    ) -> Ints:  # fmt: skip
        """What of one block comes before the gold of each query."""
        products, above_Q, near_Q = self._split(by, block, prepared, golds)
        counts_Q = above_Q.copy()
        crowded = near_Q > max(1.0, _MANY_NEAR * len(block.raw_BD))
        if crowded.any() and prepared.error_Q.any():
            retried = np.flatnonzero(crowded)
            picked = golds.pick(retried)
            again = self._second.prepare(queries_QD[retried], self.vectors, picked.score_Q)
            finer, above, near = self._split(self._second, block, again, picked)
            counts_Q[retried] = above + self._settle(
                finer, near, block, doubles_QD[retried], picked
            )
            near_Q = np.where(crowded, 0, near_Q)
        return counts_Q + self._settle(products, near_Q, block, doubles_QD, golds)

    def _split(
        self, by: Filter, block: Block, prepared: Prepared, golds: Golds
    ) -> tuple[Products, Ints, Ints]:
        """Products of a block, how many are above for certain, and how many are in doubt."""
        low_Q, high_Q = thresholds(prepared, block, golds.score_Q, self.vectors.dim)
        products = by.products(prepared, block, low_Q, high_Q)
        above_Q, near_Q = products.count(self.pool, self.share)
        return products, above_Q, near_Q

    def _settle(
        self, products: Products, near_Q: Ints, block: Block, doubles_QD: Doubles, golds: Golds
    ) -> Ints:
        """How many of the products in doubt come before the gold, by their exact scores."""
        counts_Q = np.zeros(len(near_Q), dtype=np.int64)
        queries = np.flatnonzero(near_Q)
        if not len(queries):
            return counts_Q
        starts = np.concatenate(([0], np.cumsum(near_Q[queries])))
        columns = products.near_columns(queries, starts)
        order_B = np.asarray(
            self.id_order_N[block.first : block.first + len(block.raw_BD)], dtype=np.int64
        )
        bits_BD, before = bits_of(block.raw_BD), np.zeros(len(queries), dtype=np.int64)
        # more parts than threads: some queries have many times the pairs of others
        edges = np.searchsorted(starts, np.linspace(0, starts[-1], 8 * self._threads + 1))
        edges[0], edges[-1] = 0, len(queries)
        waiting = [
            self.pool.submit(
                kernels.count_before, bits_BD, self.vectors.code, doubles_QD, queries, starts,
                columns, golds.score_Q, golds.order_Q, order_B, int(first), int(last), before,
            )
            for first, last in itertools.pairwise(edges)
            if first < last
        ]  # fmt: skip
        for job in waiting:
            job.result()
        counts_Q[queries] = before
        return counts_Q
