"""The filter on tensor cores of GPUs: products and counts by torch.

The tests run the same code on CPUs, where nothing chooses it; it has never been run on a GPU.
Importing this module needs torch.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from convsearch.errors import ConfigError
from retriever_server.dense.filters import (
    TENSOR_CORE_UNIT,
    Doubles,
    Filter,
    Ints,
    NumpyFilter,
    Prepared,
    Products,
    Share,
    thresholds,
)
from retriever_server.dense.formats import Floats, Raw
from retriever_server.dense.vectors import Block, Vectors

_HEADROOM = 2.0**14
"""Largest scaled product in float16, which ends at 65504; half of the longest scaled query."""
_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Queries and negated offsets on one device, both scaled."""

    queries_QD: torch.Tensor
    minus_offset_Q1: torch.Tensor


class TorchFilter:
    """See `Filter`. The vectors must be stored as bfloat16 or float16."""

    def __init__(self, vectors: Vectors, device: str = "cpu") -> None:
        """Raises ConfigError for float32 vectors."""
        if vectors.format not in _HALF:
            raise ConfigError(
                f"{vectors.folder}: half-precision products need bfloat16 or float16 vectors; "
                f"these are {vectors.format}"
            )
        self.finer: Filter | None = NumpyFilter()
        self._device = torch.device(device)
        self._dtype = _HALF[vectors.format]
        self._resident: dict[int, torch.Tensor] = {}
        if self._device.type == "cuda":
            # partial sums rounded to half precision would break the bound
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._offsets = self._subtracts_offset(vectors.dim)

    def _subtracts_offset(self, dim: int) -> bool:
        return subtracts_before_rounding(self._device, self._dtype, dim)

    def load(self, blocks: Sequence[Block]) -> None:
        """Copies blocks to the device, where they stay."""
        for block in blocks:
            self._resident[block.first] = self._tensor(block.raw_BD).to(self._device)

    def _tensor(self, raw: Raw) -> torch.Tensor:
        return torch.from_numpy(raw).view(self._dtype)

    def _on_device(self, block: Block) -> torch.Tensor:
        loaded_BD = self._resident.get(block.first)
        return self._tensor(block.raw_BD).to(self._device) if loaded_BD is None else loaded_BD

    def prepare(self, queries_QD: Floats, vectors: Vectors, gold_Q: Doubles) -> Prepared:
        """See `Filter`. The offset is the gold's score, so that rounding to half precision, which
        is relative, costs least where it matters."""
        exact_QD = queries_QD.astype(np.float64)
        scale_Q = np.ones(len(queries_QD))
        if self._dtype == torch.float16:
            # at least a half: queries scaled for very short vectors would themselves overflow
            reach_Q = np.linalg.norm(exact_QD, axis=1) * max(vectors.longest, 0.5)
            with np.errstate(divide="ignore"):
                power_Q = np.floor(np.log2(_HEADROOM / reach_Q))
            scale_Q = np.exp2(np.clip(power_Q, -60, 60))
        scaled = torch.from_numpy(exact_QD * scale_Q[:, None])
        operand_QD = scaled.to(self._dtype)
        rounded_QD = operand_QD.double().numpy() / scale_Q[:, None]
        error_QD = exact_QD - rounded_QD
        shift_Q = error_QD @ vectors.mean_D.astype(np.float64)
        offset = torch.zeros(len(gold_Q), dtype=self._dtype)
        if self._offsets:
            offset = torch.from_numpy((gold_Q - shift_Q) * scale_Q).to(self._dtype)
        return Prepared(
            operand=Operand(
                queries_QD=operand_QD.to(self._device),
                minus_offset_Q1=-offset[:, None].to(self._device),
            ),
            unit=TENSOR_CORE_UNIT,
            terms=vectors.dim,
            error_Q=np.linalg.norm(error_QD, axis=1) * (1 + 1e-9),
            shift_Q=shift_Q,
            length_Q=np.linalg.norm(rounded_QD, axis=1) * (1 + 1e-9),
            offset_Q=offset.double().numpy() / scale_Q,
            scale_Q=scale_Q,
            rounding_Q=np.zeros(len(queries_QD)),
            select=_select,
        )

    def products(
        self, prepared: Prepared, block: Block, score_Q: Doubles, listing: bool = False
    ) -> Products:
        """See `Filter`."""
        low_Q, high_Q = thresholds(prepared, block, score_Q, listing)
        operand = prepared.operand
        assert isinstance(operand, Operand)
        block_BD = self._on_device(block)
        with torch.inference_mode():
            if self._offsets:
                products_QB = torch.addmm(operand.minus_offset_Q1, operand.queries_QD, block_BD.T)
            else:
                products_QB = operand.queries_QD @ block_BD.T
        low, high = (
            torch.from_numpy(bound_Q * prepared.scale_Q).to(self._dtype)
            for bound_Q in (low_Q, high_Q)
        )
        return DeviceProducts(products_QB, low.to(self._device), high.to(self._device))


class DeviceProducts:
    """`Products` on a device, counted by torch."""

    def __init__(
        self, products_QB: torch.Tensor, low_Q: torch.Tensor, high_Q: torch.Tensor
    ) -> None:
        self._products_QB = products_QB
        self._low_Q1, self._high_Q1 = low_Q[:, None], high_Q[:, None]

    def count(self, pool: ThreadPoolExecutor, share: Share) -> tuple[Ints, Ints]:
        """See `Products`."""
        above_Q = (self._products_QB > self._high_Q1).sum(dim=1)
        reached_Q = (self._products_QB >= self._low_Q1).sum(dim=1)
        both = torch.stack((above_Q, reached_Q - above_Q)).cpu().numpy()
        return both[0], both[1]

    def near_columns(self, queries: npt.NDArray[np.intp], starts: Ints) -> Ints:
        """See `Products`."""
        chosen = torch.from_numpy(queries).to(self._products_QB.device)
        rows_PB = self._products_QB[chosen]
        near = (rows_PB >= self._low_Q1[chosen]) & (rows_PB <= self._high_Q1[chosen])
        return near.nonzero()[:, 1].cpu().numpy()


def _select(operand: object, queries: npt.NDArray[np.intp]) -> object:
    assert isinstance(operand, Operand)
    chosen = torch.from_numpy(queries).to(operand.queries_QD.device)
    return Operand(
        queries_QD=operand.queries_QD[chosen], minus_offset_Q1=operand.minus_offset_Q1[chosen]
    )


def subtracts_before_rounding(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """Whether `addmm` adds its first argument in float32, before the result becomes half precision.

    The proof needs that, so it is tried on every machine, for several sizes, since libraries choose
    their code by size: 1 + 2^-7 minus 1 leaves exactly 2^-7 only where the sum was not rounded in
    between.
    """
    tiny = 2.0**-7
    for num_queries in (1, 8, 256, 2048):
        for rows in (16, 1024, 8192):
            queries = torch.zeros(num_queries, dim, dtype=dtype, device=device)
            block = torch.zeros(rows, dim, dtype=dtype, device=device)
            queries[:, 0], block[:, 0] = 16.0, 16.0
            if dim > 1:
                queries[:, -1], block[:, -1] = 1.0, tiny
            minus = torch.full((num_queries, 1), -256.0, dtype=dtype, device=device)
            found = torch.addmm(minus, queries, block.T)
            if not bool((found == (tiny if dim > 1 else 0.0)).all()):
                return False
    return True
