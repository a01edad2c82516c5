"""The filter for GPUs that counts inside the matrix product: one Triton kernel, no scores written.

The torch path writes the products of a block to the GPU's memory and reads them three times. Here a
tile of products is compared while it lies in registers. What leaves it is two counts for each query
and the rows in doubt. The products stay float32, so nothing is subtracted before a last rounding
(`offset_Q` is 0) and the bound of `exact_rank` holds with the unit of the accumulator alone. The
gold's own row lies between the thresholds and is settled with the others in doubt. The cut at topk
is the engine's: it stops asking for queries that have enough.

Importing this module needs torch and triton, which torch's builds for GPUs bring. It has been run
in Triton's interpreter only, never on a GPU; `agrees_with_torch` is therefore asked on each device
before the filter is used there.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
import triton  # pyright: ignore[reportMissingImports] - torch for CPUs comes without
import triton.language as tl  # pyright: ignore[reportMissingImports]

from retriever_server.dense.filters import Doubles, Ints, Prepared, Products, Share, thresholds
from retriever_server.dense.torch_filter import DeviceProducts, Operand, TorchFilter
from retriever_server.dense.vectors import Block, Vectors

CAPACITY = 256
"""Rows in doubt that are kept for each query and block. Of a whole block it is 3 %, and from 2 % on
the engine asks a float32 filter instead."""
_TILE_QUERIES, _TILE_ROWS, _TILE_DIM = 128, 128, 64


@triton.jit(do_not_specialize=["num_queries", "num_rows"])
def _count_band(
    queries, block, low, high, above, near, columns, num_queries, num_rows,
    DIM: tl.constexpr, CAPACITY: tl.constexpr, WIDEN: tl.constexpr,
    TILE_QUERIES: tl.constexpr, TILE_ROWS: tl.constexpr, TILE_DIM: tl.constexpr,
):  # fmt: skip
    """One tile of products: adds to `above` and `near`, and writes rows in doubt to `columns`."""
    query = tl.program_id(0) * TILE_QUERIES + tl.arange(0, TILE_QUERIES)
    row = tl.program_id(1) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    is_query = query < num_queries
    is_row = row < num_rows
    products = tl.zeros((TILE_QUERIES, TILE_ROWS), dtype=tl.float32)
    for start in range(0, DIM, TILE_DIM):
        d = start + tl.arange(0, TILE_DIM)
        left = tl.load(
            queries + query[:, None] * DIM + d[None, :],
            mask=is_query[:, None] & (d < DIM)[None, :],
            other=0.0,
        )
        right = tl.load(
            block + row[None, :] * DIM + d[:, None],
            mask=is_row[None, :] & (d < DIM)[:, None],
            other=0.0,
        )
        if WIDEN:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        products = tl.dot(left, right, products)
    low_Q = tl.load(low + query, mask=is_query, other=0.0)
    high_Q = tl.load(high + query, mask=is_query, other=0.0)
    inside = is_query[:, None] & is_row[None, :]
    is_above = inside & (products > high_Q[:, None])
    is_near = inside & (products >= low_Q[:, None]) & (products <= high_Q[:, None])
    num_above = tl.sum(is_above.to(tl.int32), axis=1)
    tl.atomic_add(above + query, num_above, mask=is_query & (num_above > 0))
    # the tile takes as many places of each query as it has in doubt; beyond the capacity they only
    # count
    doubts = is_near.to(tl.int32)
    num_near = tl.sum(doubts, axis=1)
    first = tl.atomic_add(near + query, num_near, mask=is_query & (num_near > 0))
    place = first[:, None] + tl.cumsum(doubts, axis=1) - 1
    target = columns + query[:, None] * CAPACITY + place
    value = row[None, :] + tl.zeros((TILE_QUERIES, TILE_ROWS), dtype=tl.int32)
    tl.store(target, value, mask=is_near & (place < CAPACITY))


def count_band(
    queries_QD: torch.Tensor, block_BD: torch.Tensor, low_Q: torch.Tensor, high_Q: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(counts, columns), int32: counts (2, Q) of products above `high` and of those from `low` to
    `high`; columns (Q, CAPACITY) the rows of the latter, in any order. low, high: float32."""
    num_queries, dim = queries_QD.shape
    num_rows = len(block_BD)
    device = queries_QD.device
    counts = torch.zeros((2, num_queries), dtype=torch.int32, device=device)
    columns = torch.empty((num_queries, CAPACITY), dtype=torch.int32, device=device)
    grid = (triton.cdiv(num_queries, _TILE_QUERIES), triton.cdiv(num_rows, _TILE_ROWS))
    with torch.cuda.device_of(queries_QD):  # Triton launches on the current device
        _count_band[grid](  # pyright: ignore[reportIndexIssue]
            queries_QD.contiguous(), block_BD.contiguous(), low_Q, high_Q,
            counts[0], counts[1], columns, num_queries, num_rows,
            DIM=dim,
            CAPACITY=CAPACITY,
            # the interpreter holds bfloat16 as bits and would multiply those
            WIDEN=device.type == "cpu",
            TILE_QUERIES=_TILE_QUERIES, TILE_ROWS=_TILE_ROWS, TILE_DIM=_TILE_DIM,
            num_warps=8, num_stages=3,
        )  # fmt: skip
    return counts, columns


class TritonFilter(TorchFilter):
    """See `Filter`. A GPU; a CPU only in Triton's interpreter."""

    def __init__(self, vectors: Vectors, device: str = "cuda") -> None:
        """Raises ConfigError for float32 vectors."""
        super().__init__(vectors, device)
        self._dim = vectors.dim

    def _subtracts_offset(self, dim: int) -> bool:
        return False

    def agrees_with_torch(self) -> bool:
        """See the function of this name; for this filter's device, format and dimension."""
        return agrees_with_torch(self._device, self._dtype, self._dim)

    def products(
        self, prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
    ) -> Products:
        """See `Filter`."""
        low_Q, high_Q = thresholds(prepared, block, score_Q, listing)
        operand = prepared.operand
        assert isinstance(operand, Operand)
        low, high = (
            torch.from_numpy((bound_Q * prepared.scale_Q).astype(np.float32)).to(self._device)
            for bound_Q in (low_Q, high_Q)
        )
        return FusedProducts(operand.queries_QD, self._on_device(block), low, high)


class FusedProducts:
    """`Products` that were counted and not kept."""

    def __init__(
        self,
        queries_QD: torch.Tensor,
        block_BD: torch.Tensor,
        low_Q: torch.Tensor,
        high_Q: torch.Tensor,
    ) -> None:
        self._counts, self._columns_QK = count_band(queries_QD, block_BD, low_Q, high_Q)
        self._inputs = queries_QD, block_BD, low_Q, high_Q
        self._near_Q: Ints = np.empty(0, dtype=np.int64)
        self._full: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._plain: DeviceProducts | None = None

    def count(self, pool: ThreadPoolExecutor, share: Share) -> tuple[Ints, Ints]:
        """See `Products`. Queries with more rows in doubt than the buffer holds are counted again
        by torch, in float32, so that their counts and their rows come from the same products."""
        above_Q, near_Q = self._counts.cpu().numpy().astype(np.int64)
        self._full = np.flatnonzero(near_Q > CAPACITY)
        if len(self._full):
            queries_QD, block_BD, low_Q, high_Q = self._inputs
            chosen = torch.from_numpy(self._full).to(queries_QD.device)
            with torch.inference_mode():
                products = queries_QD[chosen].float() @ block_BD.float().T
            self._plain = DeviceProducts(products, low_Q[chosen], high_Q[chosen])
            above_Q[self._full], near_Q[self._full] = self._plain.count(pool, share)
        self._near_Q = near_Q
        return above_Q, near_Q

    def near_columns(self, queries: npt.NDArray[np.intp], starts: Ints) -> Ints:
        """See `Products`; `count` comes first."""
        columns = np.empty(int(starts[-1]), dtype=np.int64)
        plain = np.isin(queries, self._full)
        by_plain = np.repeat(plain, np.diff(starts))
        chosen = queries[~plain]
        device = self._columns_QK.device
        near = torch.from_numpy(self._near_Q[chosen]).to(device)
        kept = torch.arange(CAPACITY, device=device) < near[:, None]
        rows_PK = self._columns_QK[torch.from_numpy(chosen).to(device)]
        columns[~by_plain] = rows_PK[kept].cpu().numpy()
        if self._plain is not None and plain.any():
            places = np.searchsorted(self._full, queries[plain])
            columns[by_plain] = self._plain.near_columns(places, starts)
        return columns


def agrees_with_torch(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """Whether the kernel counts and lists on this device what torch does in double precision.

    On small whole numbers, whose sums are exact in float32 and in nothing shorter, with thresholds
    that are met exactly. It shows that the kernel is right on the device; how much the unit of its
    accumulator rounds is assumed, see `exact_rank`.
    """
    generator = torch.Generator().manual_seed(0)
    queries_QD = torch.randint(0, 16, (_TILE_QUERIES + 5, dim), generator=generator)
    block_BD = torch.randint(0, 16, (3 * _TILE_ROWS + 7, dim), generator=generator)
    exact_QB = queries_QD.double() @ block_BD.double().T
    ordered_QB = exact_QB.sort(dim=1).values
    low_Q, high_Q = ordered_QB[:, 250], ordered_QB[:, 300]
    near_QB = (exact_QB >= low_Q[:, None]) & (exact_QB <= high_Q[:, None])
    expected = torch.stack(((exact_QB > high_Q[:, None]).sum(dim=1), near_QB.sum(dim=1)))
    counts, columns_QK = count_band(
        queries_QD.to(dtype).to(device), block_BD.to(dtype).to(device),
        low_Q.float().to(device), high_Q.float().to(device),
    )  # fmt: skip
    if not torch.equal(counts.cpu().long(), expected):
        return False
    return all(
        sorted(row[:CAPACITY][:num].tolist()) == near_B.nonzero()[:, 0].tolist()
        for row, num, near_B in zip(columns_QK.cpu(), expected[1].tolist(), near_QB, strict=True)
        if num <= CAPACITY
    )
