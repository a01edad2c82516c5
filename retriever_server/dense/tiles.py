"""Tile instructions of Intel's AMX in compiled loops: bfloat16 products of 32 rows by 32 queries.

A tile register holds 16 rows of 64 bytes. One instruction adds to 16 x 16 float32 sums the products
of 16 rows of 32 bfloat16 numbers each, sixteen times what AVX512 does in float32. Four registers
hold the sums, four the numbers, so that each number that is read is used for 32 products.

The instructions are LLVM's, called by name; the processor must have them (`available`), or LLVM
ends the process. Semantics and rounding: Intel Architecture Software Developer's Manual,
TDPBF16PS: products and sums in float32, rounded to nearest, subnormal numbers flushed to zero.
"""

import ctypes
import platform
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

SIDE = 32
"""Rows, and queries, of one product; and numbers of each that one step multiplies."""
_HALF = SIDE // 2
_STEP_BYTES = 64
_TILE_BYTES = _HALF * _STEP_BYTES
_ROW_BYTES = SIDE * 4
"""Of the sums: 32 of float32."""
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _I8.as_pointer()
_LANES = 16
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_INTS = ir.VectorType(_I32, _LANES)
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Linux keeps a process from tiles until it asks (kernel documentation, x86/xstate)."""


def available() -> bool:
    """Whether this process can use bfloat16 tiles from now on; asks Linux for the permission."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if any(getattr(config, name) for name in ("DISABLE_JIT", "CPU_NAME", "CPU_FEATURES")):
        return False  # numba compiles nothing, or for a processor that somebody named
    if not binding.get_host_cpu_features().get("amx-bf16", False):
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


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """Zeros that begin at a multiple of 64 bytes: a row of a tile across two cache lines takes
    twice as long to read."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + _STEP_BYTES, dtype=np.uint8)
    start = -room.ctypes.data % _STEP_BYTES
    return room[start : start + size].view(dtype).reshape(shape)


def packed(bits_QTD: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Queries as the tiles of `multiply`: (groups of 32, T D / 32 steps, 2 halves, 16 pairs of
    numbers, 16 queries, 2), the last group filled up with zeros.

    bits_QTD: bfloat16 bits of T terms of each query; D a multiple of 32.
    """
    num_queries, terms, dim = bits_QTD.shape
    groups, steps = -(-num_queries // SIDE), terms * dim // SIDE
    full = np.zeros((groups * SIDE, terms * dim), dtype=np.uint16)
    full[:num_queries] = bits_QTD.reshape(num_queries, -1)
    out = aligned((groups, steps, 2, _HALF, _HALF, 2), np.uint16)
    parts = full.reshape(groups, 2, _HALF, steps, _HALF, 2)
    out[:] = parts.transpose(0, 3, 1, 4, 2, 5)
    return out


def _call(builder: Any, name: str, *arguments: Any) -> None:
    kinds = [argument.type for argument in arguments]
    function = ir.FunctionType(ir.VoidType(), kinds)
    builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """The address of an array's first byte."""
    return builder.bitcast(context.make_array(kind)(context, builder, value).data, _BYTES)


def _at(builder: Any, base: Any, offset: Any) -> Any:
    """The address so many bytes on."""
    return builder.gep(base, [offset])


def _configure(typing_context: Any, content: Any) -> Any:
    """Before the first product; content: `configuration`."""
    del typing_context

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _data(context, builder, signature.args[0], arguments[0])
        _call(builder, "llvm.x86.ldtilecfg", address)
        return context.get_dummy_value()

    return types.void(content), build


configure: Any = intrinsic(_configure)


def _release(typing_context: Any) -> Any:
    """After the last product."""
    del typing_context

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature, arguments
        _call(builder, "llvm.x86.tilerelease")
        return context.get_dummy_value()

    return types.void(), build


release: Any = intrinsic(_release)


def _multiply(
    typing_context: Any, bits_BD: Any, row: Any, step: Any, queries: Any, group: Any,
    query_step: Any, num_steps: Any, sums: Any, place: Any,
) -> Any:  # fmt: skip
    """Adds to 32 rows of `sums`, from `place` on, the products of rows `row` to `row + 31` with the
    32 queries of a group, over some steps of 32 numbers; where the queries' first step is 0 the
    sums begin at zero.

    bits_BD: uint16, dim a multiple of 32. queries: `packed`. sums: float32 (rows, 32). All
    contiguous. step, query_step: the first of each.
    """
    del typing_context
    integers = (row, step, group, query_step, num_steps, place)
    if not all(isinstance(kind, types.Integer) for kind in integers):
        return None
    signature = types.void(
        bits_BD, types.int64, types.int64, queries, types.int64, types.int64, types.int64, sums,
        types.int64,
    )  # fmt: skip
    return signature, _build_multiply


multiply: Any = intrinsic(_multiply)


def _build_multiply(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, row, step, _, group, query_step, num_steps, _, place = arguments
    rows, numbers, out = (
        _data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 7)
    )
    shape = context.make_array(signature.args[0])(context, builder, arguments[0]).shape
    row_bytes = builder.mul(cgutils.unpack_tuple(builder, shape, 2)[1], _I64(2))
    shape = context.make_array(signature.args[3])(context, builder, arguments[3]).shape
    steps_of_group = cgutils.unpack_tuple(builder, shape, 6)[1]
    first_step = builder.add(builder.mul(group, steps_of_group), query_step)
    offset = builder.add(builder.mul(row, row_bytes), builder.mul(step, _I64(_STEP_BYTES)))
    rows = _at(builder, rows, offset)
    numbers = _at(builder, numbers, builder.mul(first_step, _I64(2 * _TILE_BYTES)))
    out = _at(builder, out, builder.mul(place, _I64(_ROW_BYTES)))
    halves = [(i, j) for i in range(2) for j in range(2)]
    corners = [_at(builder, out, _I64(_HALF * (i * _ROW_BYTES + j * 4))) for i, j in halves]
    stride = _I64(_ROW_BYTES)
    with builder.if_else(builder.icmp_unsigned("==", query_step, _I64(0))) as (begin, go_on):
        with begin:
            for tile in range(4):
                _call(builder, "llvm.x86.tilezero", _I8(tile))
        with go_on:
            for tile, corner in enumerate(corners):
                _call(builder, "llvm.x86.tileloadd64", _I8(tile), corner, stride)
    with cgutils.for_range(builder, num_steps) as loop:
        left = _at(builder, rows, builder.mul(loop.index, _I64(_STEP_BYTES)))
        right = _at(builder, numbers, builder.mul(loop.index, _I64(2 * _TILE_BYTES)))
        for j in range(2):
            half = _at(builder, right, _I64(j * _TILE_BYTES))
            _call(builder, "llvm.x86.tileloadd64", _I8(6 + j), half, _I64(_STEP_BYTES))
        for i in range(2):
            half = _at(builder, left, builder.mul(row_bytes, _I64(i * _HALF)))
            _call(builder, "llvm.x86.tileloadd64", _I8(4 + i), half, row_bytes)
            for j in range(2):
                _call(builder, "llvm.x86.tdpbf16ps", _I8(2 * i + j), _I8(4 + i), _I8(6 + j))
    for tile, corner in enumerate(corners):
        _call(builder, "llvm.x86.tilestored64", _I8(tile), corner, stride)
    return context.get_dummy_value()


def _count_band(
    typing_context: Any, sums: Any, num_rows: Any, group: Any, low: Any, high: Any, counts: Any
) -> Any:
    """Of the first rows of `sums`, for each of the 32 queries of a group: how many are above
    `high`, to counts[0], and how many are at `low` or above, to counts[1].

    low, high: float32 (groups, 32); counts: int32 (2, 32). All contiguous. On any processor.
    """
    del typing_context
    if not (isinstance(num_rows, types.Integer) and isinstance(group, types.Integer)):
        return None
    return types.void(sums, types.int64, types.int64, low, high, counts), _build_count_band


count_band: Any = intrinsic(_count_band)


def _build_count_band(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, num_rows, group, *_ = arguments
    sums, low, high, counts = (
        _data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 4, 5)
    )

    def half_row(base: Any, kind: ir.Type, half: int) -> Any:
        place = _at(builder, base, _I64(half * _ROW_BYTES // 2))
        return builder.bitcast(place, kind.as_pointer())

    offset = builder.mul(group, _I64(_ROW_BYTES))
    tests = []
    for place, operator, bounds in ((0, ">", high), (1, ">=", low)):
        for half in range(2):
            bound = builder.load(half_row(_at(builder, bounds, offset), _FLOATS, half), align=4)
            count = cgutils.alloca_once_value(builder, ir.Constant(_INTS, None))
            target = half_row(_at(builder, counts, _I64(place * _ROW_BYTES)), _INTS, half)
            tests.append((half, operator, bound, count, target))
    with cgutils.for_range(builder, num_rows) as loop:
        row = _at(builder, sums, builder.mul(loop.index, _I64(_ROW_BYTES)))
        values = [builder.load(half_row(row, _FLOATS, half), align=4) for half in range(2)]
        for half, operator, bound, count, _ in tests:
            found = builder.zext(builder.fcmp_ordered(operator, values[half], bound), _INTS)
            builder.store(builder.add(builder.load(count), found), count)
    for _, _, _, count, target in tests:
        builder.store(builder.load(count), target, align=4)
    return context.get_dummy_value()
