"""Which machine computes the products: GPUs, half-precision units of the CPU, or plain float32."""

import logging
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retriever_server.dense.exact_rank import BLOCK_ROWS, split
from retriever_server.dense.filters import Filter
from retriever_server.dense.vectors import Vectors

if TYPE_CHECKING:
    from retriever_server.dense.torch_filter import TorchFilter

_log = logging.getLogger(__name__)
GPU_SHARE = 0.8
"""Part of a GPU's free memory that vectors may take, those for counting and then those for lists;
the rest is for products and the encoder."""


def choose_filters(vectors: Vectors) -> Sequence[Filter]:
    """The fastest filters this machine has for these vectors; none means float32 on the CPU.

    GPUs are used where together they hold all vectors. A CPU without bfloat16 units computes
    bfloat16 products an order of magnitude slower than float32, and gets none.
    """
    if vectors.format == "float32":
        return []
    try:
        import torch
    except ImportError:
        return []
    from retriever_server.dense.torch_filter import TorchFilter

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus:
        free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(num_gpus)]
        if vectors.num_bytes <= GPU_SHARE * num_gpus * min(free):
            filters = [gpu_filter(vectors, f"cuda:{gpu}") for gpu in range(num_gpus)]
            parts = split(list(vectors.blocks(BLOCK_ROWS)), num_gpus)
            for one, part in zip(filters, parts, strict=True):
                one.load(part)
            return filters
    if vectors.format == "bfloat16" and has_bfloat16_units():
        return [TorchFilter(vectors)]
    return []


def gpu_filter(vectors: Vectors, device: str) -> "TorchFilter":
    """The Triton kernel where it is installed and counts right on this device, else plain torch.

    A kernel that does not compile there (no C compiler, an old GPU) costs speed and a warning.
    """
    from retriever_server.dense.torch_filter import TorchFilter

    try:
        from triton.errors import TritonError  # pyright: ignore[reportMissingImports]

        from retriever_server.dense.triton_filter import TritonFilter
    except ImportError:
        return TorchFilter(vectors, device)
    fused = TritonFilter(vectors, device)
    try:
        if fused.agrees_with_torch():
            return fused
        reason = "its counts differ from those of torch"
    except (TritonError, RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        reason = f"it does not run: {error}"
    _log.warning("%s: the Triton kernel is not used, %s; torch counts", device, reason)
    return TorchFilter(vectors, device)


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512_BF16 or AMX). Needs torch."""
    from pathlib import Path

    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return False
    flags = path.read_text(encoding="utf-8").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
