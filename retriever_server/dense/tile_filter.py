"""The filter for processors with AMX: products in bfloat16, counted before they leave the cache.

A compiled loop takes 128 rows and 32 queries at a time, multiplies them (`tiles`), counts the sums
against the two thresholds and lists the rows in doubt. Products are never written to memory, and no
library's threads take part: the engine gives each core a filter and blocks of its own.

The stored numbers are bfloat16 already. A query is rounded to one bfloat16 number for each of its
own, or to the sum of two, which costs twice the products and errs 2^-8 times as much: `finer`. The
sums are float32, rounded to nearest, as `exact_rank` assumes of a processor; with two terms the sum
has 2 D products, and |q1||x| + |q2||x| bounds their sizes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from retriever_server.dense.filters import (
    FLOAT32_UNIT,
    Doubles,
    Filter,
    Ints,
    Prepared,
    Products,
    Room,
    Share,
)
from retriever_server.dense.formats import Floats, decode, encode
from retriever_server.dense.tiles import (
    SIDE,
    aligned,
    configuration,
    configure,
    count_band,
    multiply,
    packed,
    release,
)
from retriever_server.dense.vectors import Block, Vectors

_CONFIGURATION = configuration()
CHUNK_ROWS = 128
"""Rows whose sums with 32 queries, 16 KB, stay in the first cache until they are counted."""
PART_STEPS = 8
"""Steps of 32 numbers that are multiplied for all rows of a chunk before the next: 32 queries of so
many are 16 KB, which stay in the first cache while rows pass. 1.25 times as fast as all of 768."""


class Unit(NamedTuple):
    """What multiplies: functions for compiled code."""

    begin: Any
    """Gets `tiles.configuration`, before the first product."""
    multiply: Any
    """See `tiles.multiply`."""
    end: Any


def counting_loop(unit: Unit) -> Callable[..., None]:
    """The compiled loop around a unit's products. Compiled in each process, in 0.6 s: numba's cache
    does not know a function again that holds others."""
    begin, multiply, end = unit

    @njit(nogil=True)
    def count(bits_BD, first, num_rows, queries, low, high, near_Q, above_Q, columns_QB, sums,
              counts, configuration):  # fmt: skip
        """Adds to above_Q and near_Q, and writes to columns_QB at the end of what is there.

        bits_BD: a multiple of 32 rows, of which num_rows count; the first is row `first` of the
        block.
        """
        steps = bits_BD.shape[1] // SIDE
        begin(configuration)
        for chunk in range(0, num_rows, CHUNK_ROWS):
            rows = min(num_rows - chunk, CHUNK_ROWS)
            for group in range(queries.shape[0]):
                for at in range(0, queries.shape[1], steps):
                    for step in range(0, steps, PART_STEPS):
                        for row in range(0, rows, SIDE):
                            multiply(
                                bits_BD, chunk + row, step, queries, group, at + step,
                                min(PART_STEPS, steps - step), sums, row,
                            )  # fmt: skip
                count_band(sums, rows, group, low, high, counts)
                for j in range(SIDE):
                    q = group * SIDE + j
                    above_Q[q] += counts[0, j]
                    if counts[1, j] > counts[0, j]:
                        place = near_Q[q]
                        for row in range(rows):
                            value = sums[row, j]
                            if value >= low[group, j] and value <= high[group, j]:
                                columns_QB[q, place] = first + chunk + row
                                place += 1
                        near_Q[q] = place
        end()

    return count


amx_count = counting_loop(Unit(configure, multiply, release))
"""Only where `tiles.available`."""


@njit(nogil=True, cache=True)
def _joined(columns_QB, queries, starts, out):
    """The listed rows of some queries, one query after another."""
    for place in range(queries.shape[0]):
        first, last = starts[place], starts[place + 1]
        out[first:last] = columns_QB[queries[place], : last - first]


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Queries as they are and as tiles; see `tiles.packed`."""

    bits_QTD: npt.NDArray[np.uint16]
    packed: npt.NDArray[np.uint16]


class TileFilter:
    """See `Filter`. The vectors must be stored as bfloat16, their dimension a multiple of 32."""

    def __init__(self, count: Callable[..., None], terms: int = 1) -> None:
        """count: from `counting_loop`. terms: bfloat16 numbers whose sum stands for one number of a
        query."""
        self._count, self._terms, self._room = count, terms, Room()
        self.finer: Filter | None = None if terms > 1 else TileFilter(count, 2)

    def prepare(self, queries_QD: Floats, vectors: Vectors, gold_Q: Doubles) -> Prepared:
        """See `Filter`."""
        error_QD = queries_QD.astype(np.float64)
        bits_QTD = np.empty((len(queries_QD), self._terms, vectors.dim), dtype=np.uint16)
        length_Q = np.zeros(len(queries_QD))
        for term in range(self._terms):
            raw_QD = encode(error_QD.astype(np.float32), "bfloat16")
            rounded_QD = decode(raw_QD, "bfloat16").astype(np.float64)
            bits_QTD[:, term] = raw_QD
            error_QD -= rounded_QD
            length_Q += np.linalg.norm(rounded_QD, axis=1)
        zeros_Q = np.zeros(len(queries_QD))
        return Prepared(
            operand=Operand(bits_QTD=bits_QTD, packed=packed(bits_QTD)),
            unit=FLOAT32_UNIT,
            terms=self._terms * vectors.dim,
            error_Q=np.linalg.norm(error_QD, axis=1) * (1 + 1e-9),
            shift_Q=np.einsum("qd,d->q", error_QD, vectors.mean_D.astype(np.float64)),
            length_Q=length_Q * (1 + 1e-9),
            offset_Q=zeros_Q,
            scale_Q=zeros_Q + 1,
            select=_select,
        )

    def products(
        self, prepared: Prepared, block: Block, low_Q: Doubles, high_Q: Doubles
    ) -> Products:
        """See `Filter`."""
        operand = prepared.operand
        assert isinstance(operand, Operand)
        return self.count_block(operand.packed, block.raw_BD.view(np.uint16), low_Q, high_Q)

    def count_block(
        self, queries: npt.NDArray[np.uint16], bits_BD: npt.NDArray[np.uint16], low_Q: Doubles,
        high_Q: Doubles,
    ) -> "ListedProducts":  # fmt: skip
        """queries: `tiles.packed`; bits_BD: bfloat16."""
        shape = len(queries), SIDE
        low, high = (np.full(shape, np.inf, dtype=np.float32) for _ in range(2))
        low.ravel()[: len(low_Q)], high.ravel()[: len(high_Q)] = low_Q, high_Q
        near_Q, above_Q = (np.zeros(shape[0] * SIDE, dtype=np.int64) for _ in range(2))
        columns_QB = self._room.array("columns", (shape[0] * SIDE, len(bits_BD)), np.uint16)
        sums, counts = aligned((CHUNK_ROWS, SIDE), np.float32), aligned((2, SIDE), np.int32)
        whole = len(bits_BD) // SIDE * SIDE
        rest = aligned((SIDE, bits_BD.shape[1]), np.uint16)
        rest[: len(bits_BD) - whole] = bits_BD[whole:]
        for rows_BD, first, num_rows in (
            (bits_BD, 0, whole), (rest, whole, len(bits_BD) - whole)
        ):  # fmt: skip
            self._count(
                rows_BD, first, num_rows, queries, low, high, near_Q, above_Q, columns_QB,
                sums, counts, _CONFIGURATION,
            )  # fmt: skip
        return ListedProducts(above_Q[: len(low_Q)], near_Q[: len(low_Q)], columns_QB)


class ListedProducts:
    """`Products` that were counted and not kept; valid until this thread takes the next block."""

    def __init__(self, above_Q: Ints, near_Q: Ints, columns_QB: npt.NDArray[np.uint16]) -> None:
        self.counts = above_Q, near_Q
        self._columns_QB = columns_QB

    def count(self, pool: ThreadPoolExecutor, share: Share) -> tuple[Ints, Ints]:
        """See `Products`."""
        del pool, share
        return self.counts

    def near_columns(self, queries: npt.NDArray[np.intp], starts: Ints) -> Ints:
        """See `Products`."""
        columns = np.empty(int(starts[-1]), dtype=np.int64)
        _joined(self._columns_QB, queries, starts, columns)
        return columns


def _select(operand: object, queries: npt.NDArray[np.intp]) -> object:
    assert isinstance(operand, Operand)
    bits_QTD = operand.bits_QTD[queries]
    return Operand(bits_QTD=bits_QTD, packed=packed(bits_QTD))


def agrees_with_numpy(count: Callable[..., None], dim: int) -> bool:
    """Whether a loop counts and lists on this machine what double precision does: small whole
    numbers, whose sums are exact in float32, with thresholds that are met exactly."""
    rng = np.random.default_rng(0)
    num_queries, num_rows = 2 * SIDE + 5, CHUNK_ROWS + SIDE + 7
    queries_QD, block_BD = (
        rng.integers(-8, 9, (num, dim)).astype(np.float32) for num in (num_queries, num_rows)
    )
    exact_QB = np.einsum("qd,bd->qb", queries_QD, block_BD, dtype=np.float64)
    ordered_QB = np.sort(exact_QB, axis=1)
    low_Q, high_Q = ordered_QB[:, 20], ordered_QB[:, 120]
    query_bits, block_bits = (
        encode(values, "bfloat16").view(np.uint16) for values in (queries_QD, block_BD)
    )
    products = TileFilter(count).count_block(packed(query_bits[:, None]), block_bits, low_Q, high_Q)
    above_Q, near_Q = products.counts
    near_QB = (exact_QB >= low_Q[:, None]) & (exact_QB <= high_Q[:, None])
    if not np.array_equal(above_Q, (exact_QB > high_Q[:, None]).sum(axis=1)):
        return False
    if not np.array_equal(near_Q, near_QB.sum(axis=1)):
        return False
    starts = np.concatenate(([0], np.cumsum(near_Q)))
    columns = products.near_columns(np.arange(num_queries), starts)
    return np.array_equal(columns, near_QB.nonzero()[1])
