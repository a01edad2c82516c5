"""The filter for processors with AMX: products in bfloat16, in the loop of `counting`.

The stored numbers are bfloat16 already, and queries are rounded to it. The sums are float32,
rounded to nearest, as `exact_rank` assumes of a processor.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retriever_server.dense.bands import SIDE, aligned
from retriever_server.dense.counting import (
    CHUNK_ROWS,
    Closer,
    ListedProducts,
    Look,
    Unit,
    counting_loop,
    no_look,
)
from retriever_server.dense.filters import (
    FLOAT32_UNIT,
    Doubles,
    Filter,
    Places,
    Prepared,
    Products,
    Room,
    thresholds,
)
from retriever_server.dense.formats import Floats, decode, encode
from retriever_server.dense.tiles import configuration, configure, multiply, packed, release
from retriever_server.dense.vectors import Block, Vectors

_CONFIGURATION = configuration()
PART_STEPS = 8
"""Steps of 32 numbers that are multiplied for all rows of a chunk before the next: 32 queries of so
many are 16 KB, which stay in the first cache while rows pass. 1.25 times as fast as all of 768."""


amx_count = counting_loop(Unit(configure, multiply, release, PART_STEPS))
"""Only where `tiles.available`."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Queries in bfloat16, these as tiles (see `tiles.packed`), and as they are."""

    bits_QD: npt.NDArray[np.uint16]
    packed: npt.NDArray[np.uint16]
    closer: Closer


class TileFilter:
    """See `Filter`. The vectors must be stored as bfloat16, their dimension a multiple of 32."""

    finer: Filter | None = None

    def __init__(self, count: Callable[..., None]) -> None:
        """count: from `counting_loop`."""
        self._count, self._room = count, Room()

    def prepare(self, queries_QD: Floats, vectors: Vectors, gold_Q: Doubles) -> Prepared:
        """See `Filter`."""
        raw_QD = encode(queries_QD, "bfloat16")
        rounded_QD = decode(raw_QD, "bfloat16").astype(np.float64)
        error_QD = queries_QD.astype(np.float64) - rounded_QD
        bits_QD = raw_QD.view(np.uint16)
        zeros_Q = np.zeros(len(queries_QD))
        return Prepared(
            operand=Operand(bits_QD=bits_QD, packed=packed(bits_QD), closer=Closer.of(queries_QD)),
            unit=FLOAT32_UNIT,
            terms=vectors.dim,
            error_Q=np.linalg.norm(error_QD, axis=1) * (1 + 1e-9),
            shift_Q=np.einsum("qd,d->q", error_QD, vectors.mean_D.astype(np.float64)),
            length_Q=np.linalg.norm(rounded_QD, axis=1) * (1 + 1e-9),
            offset_Q=zeros_Q,
            scale_Q=zeros_Q + 1,
            rounding_Q=zeros_Q,
            select=_select,
        )

    def products(
        self, prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
    ) -> Products:
        """See `Filter`."""
        operand = prepared.operand
        assert isinstance(operand, Operand)
        bounds = thresholds(prepared, block, score_Q, listing)
        found = ListedProducts(self._count, len(score_Q), len(block.raw_BD), self._room)
        look = operand.closer.look(block, score_Q, listing)
        _add(found, operand.packed, block.raw_BD.view(np.uint16), bounds, look)
        return found


def _add(
    found: ListedProducts, queries: npt.NDArray[np.uint16], bits_BD: npt.NDArray[np.uint16],
    bounds: tuple[Doubles, Doubles], look: Look,
) -> None:  # fmt: skip
    """queries: `tiles.packed`; bits_BD: bfloat16."""
    whole = len(bits_BD) // SIDE * SIDE
    rest_BD = aligned((SIDE, bits_BD.shape[1]), np.uint16)
    rest_BD[: len(bits_BD) - whole] = bits_BD[whole:]
    for rows_BD, first, num_rows in ((bits_BD, 0, whole), (rest_BD, whole, len(bits_BD) - whole)):
        found.add(rows_BD, first, num_rows, queries, bounds, _CONFIGURATION, look)


def _select(operand: object, queries: Places) -> Operand:
    assert isinstance(operand, Operand)
    bits_QD = operand.bits_QD[queries]
    return Operand(bits_QD=bits_QD, packed=packed(bits_QD), closer=operand.closer.pick(queries))


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
    query_bits, block_bits = (
        encode(values, "bfloat16").view(np.uint16) for values in (queries_QD, block_BD)
    )
    bounds = ordered_QB[:, 20], ordered_QB[:, 120]
    found = ListedProducts(count, num_queries, num_rows, Room())
    _add(found, packed(query_bits), block_bits, bounds, no_look(num_queries, num_rows, dim))
    return found.equals(exact_QB, bounds)
