"""The filter for processors with AMX: products in bfloat16, in the loop of `counting`.

The stored numbers are bfloat16 already. A query is rounded to one bfloat16 number for each of its
own, or to the sum of two, which costs twice the products and errs 2^-8 times as much: `finer`. The
sums are float32, rounded to nearest, as `exact_rank` assumes of a processor; with two terms the sum
has 2 D products, and |q1||x| + |q2||x| bounds their sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retriever_server.dense.counting import (
    CHUNK_ROWS,
    SIDE,
    ListedProducts,
    Unit,
    aligned,
    counting_loop,
)
from retriever_server.dense.filters import (
    FLOAT32_UNIT,
    AsStored,
    Doubles,
    Filter,
    Prepared,
    Products,
    Room,
)
from retriever_server.dense.formats import Floats, decode, encode
from retriever_server.dense.tiles import (
    configuration,
    configure,
    multiply,
    packed,
    release,
)
from retriever_server.dense.vectors import Block, Vectors

_CONFIGURATION = configuration()
PART_STEPS = 8
"""Steps of 32 numbers that are multiplied for all rows of a chunk before the next: 32 queries of so
many are 16 KB, which stay in the first cache while rows pass. 1.25 times as fast as all of 768."""


amx_count = counting_loop(Unit(configure, multiply, release, PART_STEPS))
"""Only where `tiles.available`."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Queries as they are and as tiles; see `tiles.packed`."""

    bits_QTD: npt.NDArray[np.uint16]
    packed: npt.NDArray[np.uint16]


class TileFilter(AsStored):
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
            rounding_Q=zeros_Q,
            select=_select,
        )

    def products(
        self, prepared: Prepared, block: Block, low_Q: Doubles, high_Q: Doubles
    ) -> Products:
        """See `Filter`."""
        operand = prepared.operand
        assert isinstance(operand, Operand)
        bits_BD = block.raw_BD.view(np.uint16)
        return _counted(self._count, operand.packed, bits_BD, (low_Q, high_Q), self._room)


def _counted(
    count: Callable[..., None], queries: npt.NDArray[np.uint16], bits_BD: npt.NDArray[np.uint16],
    bounds: tuple[Doubles, Doubles], room: Room,
) -> ListedProducts:  # fmt: skip
    """queries: `tiles.packed`; bits_BD: bfloat16."""
    products = ListedProducts(len(bounds[0]), len(bits_BD), room)
    whole = len(bits_BD) // SIDE * SIDE
    rest_BD = aligned((SIDE, bits_BD.shape[1]), np.uint16)
    rest_BD[: len(bits_BD) - whole] = bits_BD[whole:]
    products.add(count, bits_BD, 0, whole, queries, bounds, _CONFIGURATION)
    products.add(count, rest_BD, whole, len(bits_BD) - whole, queries, bounds, _CONFIGURATION)
    return products


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
    query_bits, block_bits = (
        encode(values, "bfloat16").view(np.uint16) for values in (queries_QD, block_BD)
    )
    bounds = ordered_QB[:, 20], ordered_QB[:, 120]
    products = _counted(count, packed(query_bits[:, None]), block_bits, bounds, Room())
    return products.equals(exact_QB, bounds)
