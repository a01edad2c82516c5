"""Counts products in the processor's first cache, where they were computed.

A compiled loop takes 128 rows and 32 queries at a time, multiplies them by a unit's instructions
(`tiles`, `dots`) and counts the products against the two thresholds. Rows in doubt are multiplied
again as they are stored, in float32, and what is in doubt then is listed. Products are never
written to memory, and no library's threads take part: the engine gives each core blocks of its own.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from retriever_server.compiling import compiled
from retriever_server.dense.bands import SIDE, aligned, band_bits, count_band, lowest_bit
from retriever_server.dense.filters import Doubles, Ints, Places, Room, Share, float32_slack
from retriever_server.dense.formats import CODES, Floats, bits_of, code_of
from retriever_server.dense.kernels import near_score
from retriever_server.dense.vectors import Block

CHUNK_ROWS = 128
"""Rows whose products with 32 queries, 16 KB, stay in the first cache until they are counted."""


class Unit(NamedTuple):
    """What multiplies: functions for compiled code, and their measure."""

    begin: Any
    """Gets the `facts`, before the first product."""
    multiply: Any
    """See `tiles.multiply` and `dots.multiply`; gets the `facts` last."""
    end: Any
    part_steps: int
    """Steps of 32 numbers that are multiplied for all rows of a chunk before the next."""


@njit(nogil=True)
def nothing_to_begin(facts):
    """Of a unit that needs no preparation."""


@njit(nogil=True)
def nothing_to_end():
    """Of a unit that leaves nothing behind."""


def counting_loop(unit: Unit) -> Callable[..., None]:
    """The compiled loop around a unit's products. Compiled in each process, in 0.6 s: numba's cache
    does not know a function again that holds others."""
    begin, multiply, end, part_steps = unit

    @njit(nogil=True)
    def count(rows_BD, first, num_rows, queries, low, high, facts, bits_BD, code, close_QD,
              close_low_Q, close_high_Q, near_Q, above_Q, columns_QB, sums, counts):  # fmt: skip
        """Adds to above_Q and near_Q, and writes to columns_QB at the end of what is there.

        rows_BD: a multiple of 32 rows, of which num_rows count; the first is row `first` of the
        block. queries: (groups, steps, ...), of a unit's layout. facts: what the unit wants. The
        block's stored numbers bits_BD and the queries as they are, close_QD, are for what lies
        between low and high.
        """
        steps = rows_BD.shape[1] // SIDE
        begin(facts)
        for chunk in range(0, num_rows, CHUNK_ROWS):
            rows = min(num_rows - chunk, CHUNK_ROWS)
            for group in range(queries.shape[0]):
                for step in range(0, steps, part_steps):
                    for row in range(0, rows, SIDE):
                        multiply(
                            rows_BD, chunk + row, step, queries, group,
                            min(part_steps, steps - step), sums, row, facts,
                        )  # fmt: skip
                count_band(sums, rows, group, low, high, counts)
                doubts = 0
                for j in range(SIDE):
                    above_Q[group * SIDE + j] += counts[0, j]
                    doubts += counts[1, j] - counts[0, j]
                if doubts == 0:
                    continue
                for row in range(rows):
                    between = band_bits(sums, row, group, low, high)
                    while between:
                        q = group * SIDE + lowest_bit(between)
                        between &= between - np.uint64(1)
                        place = first + chunk + row
                        value = np.float64(near_score(bits_BD[place], code, close_QD[q]))
                        if value > close_high_Q[q]:
                            above_Q[q] += 1
                        elif value >= close_low_Q[q]:
                            columns_QB[q, near_Q[q]] = place
                            near_Q[q] += 1
        end()

    return count


@dataclass(frozen=True)
class Closer:
    """Queries as they are, for a second look at rows that a unit's products leave in doubt."""

    queries_QD: Floats
    length_Q: Doubles

    @classmethod
    def of(cls, queries_QD: Floats) -> "Closer":
        """queries_QD: float32."""
        lengths_Q = np.linalg.norm(queries_QD.astype(np.float64), axis=1)
        return cls(np.ascontiguousarray(queries_QD), lengths_Q)

    def pick(self, queries: Places) -> "Closer":
        """Those of some queries."""
        return Closer(self.queries_QD[queries], self.length_Q[queries])

    def look(self, block: Block, score_Q: Doubles, listing: bool) -> "Look":
        """At a block; see `Filter.products`."""
        slack_Q = float32_slack(self.length_Q, block)
        high_Q = np.where(listing, np.inf, score_Q + slack_Q)
        return Look(
            bits_BD=bits_of(block.raw_BD),
            code=code_of(block.raw_BD),
            queries_QD=self.queries_QD,
            low_Q=score_Q - slack_Q,
            high_Q=high_Q,
        )


class Look(NamedTuple):
    """Stored numbers and queries, and bounds of their products in float32."""

    bits_BD: npt.NDArray[np.uint16 | np.uint32]
    code: int
    queries_QD: Floats
    low_Q: Doubles
    high_Q: Doubles


class ListedProducts:
    """`Products` that were counted and not kept; valid until this thread takes the next block."""

    def __init__(
        self, loop: Callable[..., None], num_queries: int, num_rows: int, room: Room
    ) -> None:
        """Nothing counted yet. loop: see `counting_loop`; room: holds the rows in doubt."""
        groups = -(-num_queries // SIDE)
        self._loop, self._num_queries, self._shape = loop, num_queries, (groups, SIDE)
        self._above_Q, self._near_Q = (np.zeros(groups * SIDE, dtype=np.int64) for _ in range(2))
        self._columns_QB = room.array("columns", (groups * SIDE, num_rows), np.uint16)
        self._sums = aligned((CHUNK_ROWS, SIDE), np.float32)
        self._counts = aligned((2, SIDE), np.int32)

    def add(
        self, rows_BD: np.ndarray, first: int, num_rows: int, queries: np.ndarray,
        bounds: tuple[Doubles, Doubles], facts: object, look: Look,
    ) -> None:  # fmt: skip
        """Counts some rows; see `counting_loop`. bounds: low and high, rounded to float32, which is
        monotone: what was above remains so."""
        low, high = (np.full(self._shape, np.inf, dtype=np.float32) for _ in range(2))
        with np.errstate(over="ignore"):  # beyond float32 is as good as infinite
            for bound, values_Q in zip((low, high), bounds, strict=True):
                bound.ravel()[: self._num_queries] = values_Q
        self._loop(
            rows_BD, first, num_rows, queries, low, high, facts, *look, self._near_Q, self._above_Q,
            self._columns_QB, self._sums, self._counts,
        )  # fmt: skip

    @property
    def counts(self) -> tuple[Ints, Ints]:
        """(above_Q, near_Q)."""
        return self._above_Q[: self._num_queries], self._near_Q[: self._num_queries]

    def count(self, pool: ThreadPoolExecutor, share: Share) -> tuple[Ints, Ints]:
        """See `Products`."""
        del pool, share
        return self.counts

    def near_columns(self, queries: Places, starts: Ints) -> Ints:
        """See `Products`."""
        columns = np.empty(int(starts[-1]), dtype=np.int64)
        _joined(self._columns_QB, queries, starts, columns)
        return columns

    def equals(self, exact_QB: Doubles, bounds: tuple[Doubles, Doubles]) -> bool:
        """Whether it counted and listed what these products say."""
        low_Q1, high_Q1 = (bound_Q[:, None] for bound_Q in bounds)
        near_QB = (exact_QB >= low_Q1) & (exact_QB <= high_Q1)
        above_Q, near_Q = self.counts
        if not np.array_equal(above_Q, (exact_QB > high_Q1).sum(axis=1)):
            return False
        if not np.array_equal(near_Q, near_QB.sum(axis=1)):
            return False
        starts = np.concatenate(([0], np.cumsum(near_Q)))
        columns = self.near_columns(np.arange(len(near_Q)), starts)
        return np.array_equal(columns, near_QB.nonzero()[1])


def no_look(num_queries: int, num_rows: int, dim: int) -> Look:
    """For comparisons of a unit alone: what it leaves in doubt stays so."""
    nothing_QD = np.zeros((num_queries, dim), dtype=np.float32)
    bits_BD = np.zeros((num_rows, dim), dtype=np.uint16)
    infinite_Q = np.full(num_queries, np.inf)
    return Look(bits_BD, CODES["bfloat16"], nothing_QD, -infinite_Q, infinite_Q)


@compiled()
def _joined(columns_QB, queries, starts, out):
    """The listed rows of some queries, one query after another."""
    for place in range(queries.shape[0]):
        first, last = starts[place], starts[place + 1]
        out[first:last] = columns_QB[queries[place], : last - first]
