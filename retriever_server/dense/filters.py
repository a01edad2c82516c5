"""The filter of exact ranking on any CPU: one float32 matrix product, counted in a compiled loop.

A filter is a way to compute products of queries with a block of passages, and to count them against
two thresholds. `byte_filter` has a faster one for most processors, `tile_filter` one for those with
AMX, `torch_filter` and `triton_filter` those for GPUs.
"""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retriever_server.dense import kernels
from retriever_server.dense.formats import Floats, bits_of, code_of
from retriever_server.dense.vectors import Block, Vectors

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]
"""Of queries among others."""
Share = Callable[[int], Iterator[tuple[int, int]]]
FLOAT32_UNIT = 2.0**-24
"""Unit roundoff of float32."""
TENSOR_CORE_UNIT = 2.0**-22
"""Assumed of tensor cores, which truncate: see `exact_rank`."""

UNDERFLOW = 2.0**-123
"""Per term and unit of length: 8 times the smallest normal float32, for flushed operands, products
and sums."""
_DOUBLE_SLACK = 2.0**-52


def gamma(terms: int, unit: float) -> float:
    """What a sum of so many products may err by, as a share of the sum of their sizes; see
    `exact_rank`."""
    return terms * unit / (1 - terms * unit)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Queries in a filter's number format, and what is known exactly about the difference."""

    operand: object
    """The queries q', in the type of the filter."""
    unit: float
    """Unit roundoff of the accumulator."""
    terms: int
    """Products that one sum adds up."""
    error_Q: Doubles
    """Upper bound on |q - q'|."""
    shift_Q: Doubles
    """<q - q', mean>."""
    length_Q: Doubles
    """Upper bound on |q'|."""
    offset_Q: Doubles
    """Subtracted from the products before their last rounding."""
    scale_Q: Doubles
    """Power of two the products and the offset are multiplied with, so that none overflows."""
    rounding_Q: Doubles
    """Upper bound on what shift_Q, and exact scores, are rounded by beyond the slack of
    `thresholds`."""
    select: Callable[[object, npt.NDArray[np.intp]], object]

    def pick(self, queries: npt.NDArray[np.intp]) -> "Prepared":
        """Those of some queries."""
        return Prepared(
            operand=self.select(self.operand, queries),
            unit=self.unit,
            terms=self.terms,
            error_Q=self.error_Q[queries],
            shift_Q=self.shift_Q[queries],
            length_Q=self.length_Q[queries],
            offset_Q=self.offset_Q[queries],
            scale_Q=self.scale_Q[queries],
            rounding_Q=self.rounding_Q[queries],
            select=self.select,
        )


def thresholds(
    prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
) -> tuple[Doubles, Doubles]:
    """(low_Q, high_Q) in double precision: a product outside them lies on its side of the score for
    certain; see the proof in `exact_rank`. listing: high_Q is infinite."""
    terms = prepared.terms + 1
    length_Q = prepared.length_Q * block.longest
    slack_Q = (
        prepared.error_Q * block.farthest
        + prepared.length_Q * block.left_out
        + prepared.rounding_Q
        + gamma(terms, prepared.unit) * (length_Q + np.abs(prepared.offset_Q))
        + UNDERFLOW * terms * (1 + prepared.length_Q) * (1 + block.longest)
    )
    centre_Q = score_Q - prepared.shift_Q - prepared.offset_Q
    # roundings in double precision: of the exact scores themselves, and of the lines above
    weight_Q = np.abs(score_Q) + np.abs(prepared.shift_Q) + np.abs(prepared.offset_Q) + length_Q
    slack_Q = slack_Q * (1 + 1e-9) + 4 * terms * _DOUBLE_SLACK * weight_Q
    return centre_Q - slack_Q, np.where(listing, np.inf, centre_Q + slack_Q)


def float32_slack(length_Q: Doubles, block: Block) -> Doubles:
    """What products of a block's rows with queries of these lengths may err by in float32, compared
    with their exact scores; both as they are stored."""
    terms = block.raw_BD.shape[1] + 1  # one more is more than double precision errs by
    relative_Q = gamma(terms, FLOAT32_UNIT) * length_Q * block.longest
    flushed_Q = UNDERFLOW * terms * (1 + length_Q) * (1 + block.longest)
    return (relative_Q + flushed_Q) * (1 + 1e-6)


class Products(Protocol):
    """Products of a block with all queries, held until what is in doubt has been settled."""

    def count(self, pool: ThreadPoolExecutor, share: Share) -> tuple[Ints, Ints]:
        """(above_Q, near_Q): how many are above `high`, and how many from `low` to `high`."""
        ...

    def near_columns(self, queries: npt.NDArray[np.intp], starts: Ints) -> Ints:
        """Rows of the block from `low` to `high` for these queries, one query after another;
        starts: where each begins, and the end of the last."""
        ...


class Filter(Protocol):
    """See the module."""

    finer: "Filter | None"
    """What is asked about queries that this one leaves in doubt about much of a block."""

    def prepare(self, queries_QD: Floats, vectors: Vectors, gold_Q: Doubles) -> Prepared:
        """gold_Q: scores near which the products should be most exact."""
        ...

    def products(
        self, prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
    ) -> Products:
        """Of the rows of a block, compared with a score for each query. listing: none counts as
        above it, so that all that are not below are listed."""
        ...


class HostProducts:
    """`Products` in memory."""

    def __init__(self, products_QB: Floats, low_Q: Floats, high_Q: Floats) -> None:
        self._products_QB, self._low_Q, self._high_Q = products_QB, low_Q, high_Q

    def count(self, pool: ThreadPoolExecutor, share: Share) -> tuple[Ints, Ints]:
        """See `Products`."""
        above_Q = np.zeros(len(self._low_Q), dtype=np.int64)
        near_Q = np.zeros_like(above_Q)
        jobs = [
            pool.submit(
                kernels.count_band, self._products_QB, self._low_Q, self._high_Q, first, last,
                above_Q, near_Q,
            )
            for first, last in share(len(above_Q))
        ]  # fmt: skip
        for job in jobs:
            job.result()
        return above_Q, near_Q

    def near_columns(self, queries: npt.NDArray[np.intp], starts: Ints) -> Ints:
        """See `Products`."""
        columns = np.empty(int(starts[-1]), dtype=np.int64)
        kernels.near_columns(self._products_QB, self._low_Q, self._high_Q, queries, starts, columns)
        return columns


class Room(threading.local):
    """Arrays that each thread keeps from block to block, because memory fresh from the system is
    slow to write to for the first time."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """Contiguous, with whatever is in it."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < size:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


class NumpyFilter:
    """Float32 by numpy's matrix product. Exact operands, so its doubt is rounding of sums alone."""

    finer: Filter | None = None

    def __init__(self) -> None:
        self._room = Room()

    def prepare(self, queries_QD: Floats, vectors: Vectors, gold_Q: Doubles) -> Prepared:
        """See `Filter`."""
        zeros_Q = np.zeros(len(queries_QD))
        lengths_Q = np.linalg.norm(queries_QD.astype(np.float64), axis=1) * (1 + 1e-9)
        return Prepared(
            operand=np.ascontiguousarray(queries_QD),
            unit=FLOAT32_UNIT,
            terms=vectors.dim,
            error_Q=zeros_Q,
            shift_Q=zeros_Q,
            length_Q=lengths_Q,
            offset_Q=zeros_Q,
            scale_Q=zeros_Q + 1,
            rounding_Q=zeros_Q,
            select=lambda operand, queries: np.asarray(operand)[queries],
        )

    def products(
        self, prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
    ) -> HostProducts:
        """See `Filter`; valid until this thread takes the next block."""
        low_Q, high_Q = thresholds(prepared, block, score_Q, listing)
        queries_QD, shape = np.asarray(prepared.operand), block.raw_BD.shape
        rows_BD = as_float32(block, self._room.array("rows", shape, np.float32))
        products_QB = self._room.array("products", (len(queries_QD), shape[0]), np.float32)
        np.matmul(queries_QD, rows_BD.T, out=products_QB)
        return HostProducts(products_QB, low_Q.astype(np.float32), high_Q.astype(np.float32))


def as_float32(block: Block, out_BD: Floats | None = None) -> Floats:
    """The vectors of a block as float32, which holds every stored number exactly; in `out_BD` or a
    new array where they are stored otherwise."""
    raw = block.raw_BD
    if raw.dtype == np.float32:
        return np.asarray(raw, dtype=np.float32)
    if out_BD is None:
        out_BD = np.empty(raw.shape, dtype=np.float32)
    kernels.decode_rows(bits_of(raw), code_of(raw), 0, len(raw), out_BD)
    return out_BD
