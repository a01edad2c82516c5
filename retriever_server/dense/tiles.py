"""Tile instructions of Intel's AMX in compiled loops: bfloat16 products of 32 rows by 32 queries.

A tile register holds 16 rows of 64 bytes. One instruction adds to 16 x 16 float32 sums the products
of 16 rows of 32 bfloat16 numbers each, sixteen times what AVX512 does in float32. Four registers
hold the sums, four the numbers, so that each number that is read is used for 32 products.

The instructions are LLVM's, called by name; the processor must have them (`available`), or LLVM
ends the process. Semantics and rounding: Intel Architecture Software Developer's Manual,
TDPBF16PS: products and sums in float32, rounded to nearest, subnormal numbers flushed to zero.
"""

import ctypes
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from retriever_server.dense.bands import SIDE, aligned
from retriever_server.dense.llvm_parts import I8, I64, at, call, data, features_here, shape

_HALF = SIDE // 2
_STEP_BYTES = 64
_TILE_BYTES = _HALF * _STEP_BYTES
_ROW_BYTES = SIDE * 4
"""Of the sums: 32 of float32."""
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Linux keeps a process from tiles until it asks (kernel documentation, x86/xstate)."""


def available() -> bool:
    """Whether this process can use bfloat16 tiles from now on; asks Linux for the permission."""
    if sys.platform != "linux" or not features_here().get("amx-bf16", False):
        return False
    syscall = ctypes.CDLL(None).syscall
    return syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


def configuration() -> npt.NDArray[np.uint8]:
    """What `configure` reads: eight tiles of 16 rows of 64 bytes."""
    content = np.zeros(64, dtype=np.uint8)
    content[0] = 1  # the only palette there is
    content[16:32].view(np.uint16)[:] = _STEP_BYTES
    content[48:56] = _HALF
    return content


def packed(bits_QD: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Queries as the tiles of `multiply`: (groups of 32, D / 32 steps, 2 halves, 16 pairs of
    numbers, 16 queries, 2), the last group filled up with zeros.

    bits_QD: bfloat16 bits; D a multiple of 32.
    """
    num_queries, dim = bits_QD.shape
    groups, steps = -(-num_queries // SIDE), dim // SIDE
    full = np.zeros((groups * SIDE, dim), dtype=np.uint16)
    full[:num_queries] = bits_QD
    out = aligned((groups, steps, 2, _HALF, _HALF, 2), np.uint16)
    parts = full.reshape(groups, 2, _HALF, steps, _HALF, 2)
    out[:] = parts.transpose(0, 3, 1, 4, 2, 5)
    return out


def _tile(builder: Any, name: str, *arguments: Any) -> None:
    call(builder, f"llvm.x86.{name}", ir.VoidType(), *arguments)


def _configure(typing_context: Any, content: Any) -> Any:
    """Before the first product; content: `configuration`."""
    del typing_context

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = data(context, builder, signature.args[0], arguments[0])
        _tile(builder, "ldtilecfg", address)
        return context.get_dummy_value()

    return types.void(content), build


configure: Any = intrinsic(_configure)


def _release(typing_context: Any) -> Any:
    """After the last product."""
    del typing_context

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature, arguments
        _tile(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), build


release: Any = intrinsic(_release)


def _multiply(
    typing_context: Any, bits_BD: Any, row: Any, step: Any, queries: Any, group: Any,
    num_steps: Any, sums: Any, place: Any, facts: Any,
) -> Any:  # fmt: skip
    """Adds to 32 rows of `sums`, from `place` on, the products of rows `row` to `row + 31` with the
    32 queries of a group, over some steps of 32 numbers; with the first step the sums begin at
    zero.

    bits_BD: uint16, dim a multiple of 32. queries: `packed`. sums: float32 (rows, 32). All
    contiguous. step: the first of num_steps. facts: not used.
    """
    del typing_context
    integers = (row, step, group, num_steps, place)
    if not all(isinstance(kind, types.Integer) for kind in integers):
        return None
    signature = types.void(
        bits_BD, types.int64, types.int64, queries, types.int64, types.int64, sums, types.int64,
        facts,
    )  # fmt: skip
    return signature, _build_multiply


multiply: Any = intrinsic(_multiply)


def _build_multiply(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, row, step, _, group, num_steps, _, place, _ = arguments
    rows, numbers, out = (
        data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 6)
    )
    dim = shape(context, builder, signature.args[0], arguments[0])[1]
    row_bytes = builder.mul(dim, I64(2))
    steps_of_group = shape(context, builder, signature.args[3], arguments[3])[1]
    first_step = builder.add(builder.mul(group, steps_of_group), step)
    offset = builder.add(builder.mul(row, row_bytes), builder.mul(step, I64(_STEP_BYTES)))
    rows = at(builder, rows, offset)
    numbers = at(builder, numbers, builder.mul(first_step, I64(2 * _TILE_BYTES)))
    out = at(builder, out, builder.mul(place, I64(_ROW_BYTES)))
    halves = [(i, j) for i in range(2) for j in range(2)]
    corners = [at(builder, out, I64(_HALF * (i * _ROW_BYTES + j * 4))) for i, j in halves]
    stride = I64(_ROW_BYTES)
    with builder.if_else(builder.icmp_unsigned("==", step, I64(0))) as (begin, go_on):
        with begin:
            for tile in range(4):
                _tile(builder, "tilezero", I8(tile))
        with go_on:
            for tile, corner in enumerate(corners):
                _tile(builder, "tileloadd64", I8(tile), corner, stride)
    with cgutils.for_range(builder, num_steps) as loop:
        left = at(builder, rows, builder.mul(loop.index, I64(_STEP_BYTES)))
        right = at(builder, numbers, builder.mul(loop.index, I64(2 * _TILE_BYTES)))
        for j in range(2):
            half = at(builder, right, I64(j * _TILE_BYTES))
            _tile(builder, "tileloadd64", I8(6 + j), half, I64(_STEP_BYTES))
        for i in range(2):
            half = at(builder, left, builder.mul(row_bytes, I64(i * _HALF)))
            _tile(builder, "tileloadd64", I8(4 + i), half, row_bytes)
            for j in range(2):
                _tile(builder, "tdpbf16ps", I8(2 * i + j), I8(4 + i), I8(6 + j))
    for tile, corner in enumerate(corners):
        _tile(builder, "tilestored64", I8(tile), corner, stride)
    return context.get_dummy_value()
