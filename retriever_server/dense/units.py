"""Which machine computes the products: GPUs, the processor's tiles (AMX), its products of bytes, or
plain float32."""

import logging
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retriever_server.cores import num_cores
from retriever_server.dense import dots
from retriever_server.dense.bands import SIDE
from retriever_server.dense.byte_filter import ByteFilter, byte_loop
from retriever_server.dense.byte_filter import agrees_with_numpy as bytes_agree
from retriever_server.dense.exact_rank import BLOCK_ROWS, split
from retriever_server.dense.filters import Filter
from retriever_server.dense.tile_filter import TileFilter, agrees_with_numpy, amx_count
from retriever_server.dense.tiles import available
from retriever_server.dense.vectors import Vectors

if TYPE_CHECKING:
    from retriever_server.dense.torch_filter import TorchFilter

_log = logging.getLogger(__name__)
GPU_SHARE = 0.8
"""Part of a GPU's free memory that vectors may take, those for counting and then those for lists;
the rest is for products and the encoder."""


def choose_filters(vectors: Vectors, threads: int | None = None) -> Sequence[Filter]:
    """The fastest filters this machine has for these vectors; none means float32 on the CPU.

    GPUs are used where together they hold all vectors. threads: of the processor's filters, by
    default one for each core.
    """
    on_cpu = threads or num_cores()
    return (
        _gpu_filters(vectors) or _tile_filters(vectors) * on_cpu or _byte_filters(vectors) * on_cpu
    )


def products_here() -> str:
    """In words, what multiplies bfloat16 vectors on this machine."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} GPUs, where they hold all vectors"
    if available():
        return "bfloat16 tiles of the processor (AMX)"
    if kinds := dots.here():
        return f"products of bytes by {kinds[0].name}"
    return "float32; a GPU, or a processor with AVX2 or more, is several times as fast"


def _gpu_filters(vectors: Vectors) -> Sequence[Filter]:
    if vectors.format == "float32":
        return []
    try:
        import torch
    except ImportError:
        return []
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not num_gpus:
        return []
    free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(num_gpus)]
    if vectors.num_bytes > GPU_SHARE * num_gpus * min(free):
        return []
    filters = [gpu_filter(vectors, f"cuda:{gpu}") for gpu in range(num_gpus)]
    parts = split(list(vectors.blocks(BLOCK_ROWS)), num_gpus)
    for one, part in zip(filters, parts, strict=True):
        one.load(part)
    return filters


def _tile_filters(vectors: Vectors) -> list[Filter]:
    """The one of AMX, if it can be used; it holds nothing of a call, so that threads share it."""
    if vectors.format != "bfloat16" or vectors.dim % SIDE or not available():
        return []
    if not agrees_with_numpy(amx_count, vectors.dim):
        _log.warning(
            "products in AMX tiles are not what they should be here; bytes or float32 are used"
        )
        return []
    return [TileFilter(amx_count)]


def _byte_filters(vectors: Vectors) -> list[Filter]:
    """The one of the fastest instructions that count right here; threads share it."""
    if vectors.dim % SIDE or vectors.dim > dots.LARGEST_DIM:
        return []
    for kind in dots.here():
        count = byte_loop(kind)
        if bytes_agree(kind, count, vectors.dim):
            return [ByteFilter(kind, count, vectors)]
        _log.warning("products of bytes by %s are not what they should be here", kind.name)
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
