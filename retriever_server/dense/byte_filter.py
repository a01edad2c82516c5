"""The filter for processors without AMX: products of bytes, in the loop of `counting`.

Passages and queries are rounded to one byte for each number, as a block is taken; what is stored
stays as it is, in any of the formats. With z of `byte_codes` and w = t q, the score is

    <q, x> = <q, m> + <w, z>,

so w plays the part of the query in `exact_rank`, z that of the passage, and the bound on |z - s c|
that of the passage's rounding. Sums of bytes are exact; two roundings follow, to float32 and of the
product with the row's scale s. The scale of w is in the thresholds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retriever_server.dense.bands import SIDE
from retriever_server.dense.byte_codes import code_rows
from retriever_server.dense.counting import (
    CHUNK_ROWS,
    Closer,
    ListedProducts,
    Unit,
    counting_loop,
    no_look,
    nothing_to_begin,
    nothing_to_end,
)
from retriever_server.dense.dots import LARGEST_DIM, Instructions, multiply, packed, start_of
from retriever_server.dense.filters import (
    FLOAT32_UNIT,
    Doubles,
    Filter,
    Places,
    Prepared,
    Products,
    Room,
    as_float32,
    thresholds,
)
from retriever_server.dense.formats import CODES, Floats, bits_of
from retriever_server.dense.vectors import EXTENT_ROWS, Block, Vectors

_LARGEST = 127
"""Of a byte with a sign."""
_SPREAD_ROWS = 8192
"""Rows that the spread of each dimension is taken of; any would do, a near one makes the bounds
narrow."""
_LEAST_SPREAD = 2.0**-6
"""Of a dimension, as a share of the largest."""
_DOUBLE_UNIT = 2.0**-53


def byte_loop(kind: Instructions) -> Callable[..., None]:
    """The counting loop of some instructions, which this processor must have."""
    all_steps = LARGEST_DIM // SIDE
    return counting_loop(Unit(nothing_to_begin, multiply(kind), nothing_to_end, all_steps))


@dataclass(frozen=True, kw_only=True)
class CodedBlock(Block):
    """A block with its rows as bytes; `longest`, `farthest` and `left_out` are of z and s c."""

    codes_BD: npt.NDArray[np.uint8]
    """A multiple of 32 rows."""
    scales_B: Floats


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Queries as bytes, w = scale codes + what is left out."""

    codes_QD: npt.NDArray[np.int8]
    packed: npt.NDArray[np.int8]
    start: npt.NDArray[np.int32]
    """(groups, 32): what the passages' zero byte adds to the sums, negated."""
    scale_Q: Doubles
    closer: Closer
    """The queries as they are."""


class ByteFilter:
    """See `Filter`. Of vectors in any format, their dimension a multiple of 32."""

    finer: Filter | None = None

    def __init__(self, kind: Instructions, count: Callable[..., None], vectors: Vectors) -> None:
        """count: `counting_loop` with the instructions' products."""
        self._kind, self._count, self._room = kind, count, Room()
        self._code = vectors.code
        self._mean_D = vectors.mean_D.astype(np.float32)
        self._inverse_D = (1 / _spread(vectors)).astype(np.float32)

    def prepare(self, queries_QD: Floats, vectors: Vectors, gold_Q: Doubles) -> Prepared:
        """See `Filter`."""
        exact_QD, mean_D = queries_QD.astype(np.float64), self._mean_D.astype(np.float64)
        scaled_QD = exact_QD / self._inverse_D
        scale_Q = np.abs(scaled_QD).max(axis=1) / _LARGEST
        scale_Q[scale_Q == 0] = 1
        codes_QD = np.rint(scaled_QD / scale_Q[:, None])
        rounded_QD = codes_QD * scale_Q[:, None]
        length_Q = np.linalg.norm(scaled_QD, axis=1)
        left_out_Q = np.linalg.norm(scaled_QD - rounded_QD, axis=1)
        reach_Q = np.linalg.norm(exact_QD, axis=1) * (vectors.longest + np.linalg.norm(mean_D))
        zeros_Q = np.zeros(len(queries_QD))
        return Prepared(
            operand=self._operand(codes_QD.astype(np.int8), scale_Q, Closer.of(queries_QD)),
            unit=FLOAT32_UNIT,
            terms=2,
            error_Q=left_out_Q * (1 + 1e-9) + 8 * _DOUBLE_UNIT * length_Q,
            shift_Q=np.einsum("qd,d->q", exact_QD, mean_D),
            length_Q=np.linalg.norm(rounded_QD, axis=1) * (1 + 1e-9),
            offset_Q=zeros_Q,
            scale_Q=zeros_Q + 1,
            rounding_Q=4 * vectors.dim * _DOUBLE_UNIT * reach_Q,
            select=self._select,
        )

    def coded(self, block: Block) -> CodedBlock:
        """A block as bytes; valid until this thread takes the next."""
        num_rows, dim = block.raw_BD.shape
        codes_BD = self._room.array("codes", (-(-num_rows // SIDE) * SIDE, dim), np.uint8)
        scales_B = self._room.array("scales", (len(codes_BD),), np.float32)
        bounds = np.zeros(2)
        code_rows(
            bits_of(block.raw_BD), self._code, self._mean_D, self._inverse_D, self._kind.reach,
            self._room.array("row", (dim,), np.float32), codes_BD, scales_B, bounds,
        )  # fmt: skip
        farthest, left_out = bounds.tolist()
        return CodedBlock(
            first=block.first,
            raw_BD=block.raw_BD,
            longest=farthest + left_out,
            farthest=farthest,
            left_out=left_out,
            codes_BD=codes_BD,
            scales_B=scales_B,
        )

    def products(
        self, prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
    ) -> Products:
        """See `Filter`; valid until this thread takes the next block."""
        operand, coded = prepared.operand, self.coded(block)
        assert isinstance(operand, Operand)
        low_Q, high_Q = thresholds(prepared, coded, score_Q, listing)
        found = ListedProducts(self._count, len(score_Q), len(block.raw_BD), self._room)
        found.add(
            coded.codes_BD, 0, len(block.raw_BD), operand.packed,
            (low_Q / operand.scale_Q, high_Q / operand.scale_Q), (coded.scales_B, operand.start),
            operand.closer.look(block, score_Q, listing),
        )  # fmt: skip
        return found

    def _operand(self, codes_QD: npt.NDArray[np.int8], scale_Q: Doubles, closer: Closer) -> Operand:
        return Operand(
            codes_QD=codes_QD,
            packed=packed(codes_QD),
            start=start_of(codes_QD, self._kind),
            scale_Q=scale_Q,
            closer=closer,
        )

    def _select(self, operand: object, queries: Places) -> Operand:
        assert isinstance(operand, Operand)
        picked = operand.codes_QD[queries], operand.scale_Q[queries]
        return self._operand(*picked, operand.closer.pick(queries))


def _spread(vectors: Vectors) -> Doubles:
    """Of each dimension around the mean, in a sample; none much below the largest, so that a
    dimension that is constant there cannot make rows long that are not."""
    blocks = list(vectors.blocks(EXTENT_ROWS))
    chosen = blocks[:: max(1, len(blocks) * EXTENT_ROWS // _SPREAD_ROWS)]
    squares_D, num_rows = np.zeros(vectors.dim), 0
    for block in chosen:
        away_BD = as_float32(block).astype(np.float64) - vectors.mean_D
        squares_D += np.einsum("bd,bd->d", away_BD, away_BD)
        num_rows += len(away_BD)
    spread_D = np.sqrt(squares_D / max(1, num_rows))
    largest = spread_D.max(initial=0.0)
    return np.clip(spread_D, max(largest * _LEAST_SPREAD, 2.0**-60), 2.0**60)


def agrees_with_numpy(kind: Instructions, count: Callable[..., None], dim: int) -> bool:
    """Whether a loop counts and lists on this machine what whole numbers say, with the largest
    bytes among them, and whether rows are coded within their bounds."""
    rng = np.random.default_rng(0)
    num_queries, num_rows = 2 * SIDE + 5, CHUNK_ROWS + SIDE + 7
    values_BD = rng.standard_normal((num_rows, dim), dtype=np.float32)
    codes_BD = np.zeros((-(-num_rows // SIDE) * SIDE, dim), dtype=np.uint8)
    scales_B, bounds = np.zeros(len(codes_BD), dtype=np.float32), np.zeros(2)
    ones_D, row_D = np.ones(dim, dtype=np.float32), np.empty(dim, dtype=np.float32)
    code_rows(
        values_BD.view(np.uint32), CODES["float32"], 0 * ones_D, ones_D, kind.reach, row_D,
        codes_BD, scales_B, bounds,
    )  # fmt: skip
    numbers_BD = codes_BD[:num_rows].astype(np.float64) - kind.zero
    rounded_BD = scales_B[:num_rows, None] * numbers_BD
    lengths = [np.linalg.norm(v, axis=1).max() for v in (values_BD, values_BD - rounded_BD)]
    if not (np.array(lengths) <= bounds).all() or bounds[1] > 0.1 * bounds[0]:
        return False
    codes_QD = rng.integers(-_LARGEST, _LARGEST + 1, (num_queries, dim)).astype(np.int8)
    codes_QD[0], codes_BD[0], codes_BD[1] = _LARGEST, kind.zero + kind.reach, kind.zero - kind.reach
    numbers_BD = codes_BD[:num_rows].astype(np.float64) - kind.zero
    scales_B[:] = 2.0 ** rng.integers(-3, 4, len(scales_B))
    exact_QB = np.einsum("qd,bd->qb", codes_QD, numbers_BD).astype(np.float32) * scales_B[:num_rows]
    ordered_QB = np.sort(exact_QB, axis=1).astype(np.float64)
    limits = ordered_QB[:, 20], ordered_QB[:, 120]
    found = ListedProducts(count, num_queries, num_rows, Room())
    facts, look = (scales_B, start_of(codes_QD, kind)), no_look(num_queries, num_rows, dim)
    found.add(codes_BD, 0, num_rows, packed(codes_QD), limits, facts, look)
    return found.equals(exact_QB.astype(np.float64), limits)
