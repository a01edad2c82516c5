"""Products of 32 queries with some rows, compared with two thresholds in vector registers."""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from retriever_server.dense.llvm_parts import I32, I64, at, call, data, load, store, vector

SIDE = 32
"""Rows, and queries, of one product; and numbers of each that one step multiplies."""
_LANES = 16
_ROW_BYTES = SIDE * 4
_LINE_BYTES = 64


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """Zeros that begin with a cache line: a row of a tile across two lines takes twice as long to
    read."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + _LINE_BYTES, dtype=np.uint8)
    start = -room.ctypes.data % _LINE_BYTES
    return room[start : start + size].view(dtype).reshape(shape)


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
        data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 4, 5)
    )
    floats, ints = vector(ir.FloatType(), _LANES), vector(I32, _LANES)
    halves = [half * _ROW_BYTES // 2 for half in range(2)]
    offset = builder.mul(group, group.type(_ROW_BYTES))
    tests = []
    for row, operator, bounds in ((0, ">", high), (1, ">=", low)):
        for half, place in enumerate(halves):
            bound = load(builder, at(builder, at(builder, bounds, offset), place), floats)
            count = cgutils.alloca_once_value(builder, ir.Constant(ints, None))
            target = at(builder, counts, row * _ROW_BYTES + place)
            tests.append((half, operator, bound, count, target))
    with cgutils.for_range(builder, num_rows) as loop:
        row = at(builder, sums, builder.mul(loop.index, loop.index.type(_ROW_BYTES)))
        values = [load(builder, at(builder, row, place), floats) for place in halves]
        for half, operator, bound, count, _ in tests:
            found = builder.zext(builder.fcmp_ordered(operator, values[half], bound), ints)
            builder.store(builder.add(builder.load(count), found), count)
    for _, _, _, count, target in tests:
        store(builder, builder.load(count), target)
    return context.get_dummy_value()


def _band_bits(typing_context: Any, sums: Any, row: Any, group: Any, low: Any, high: Any) -> Any:
    """The queries of a group whose product in a row of `sums` lies from `low` to `high`: its
    lowest 32 bits. Arguments as of `count_band`."""
    del typing_context
    if not (isinstance(row, types.Integer) and isinstance(group, types.Integer)):
        return None
    return types.uint64(sums, types.int64, types.int64, low, high), _build_band_bits


band_bits: Any = intrinsic(_band_bits)


def _build_band_bits(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, row, group, *_ = arguments
    places = [
        at(builder, data(context, builder, signature.args[i], arguments[i]), builder.mul(
            number, number.type(_ROW_BYTES)
        ))
        for i, number in ((0, row), (3, group), (4, group))
    ]  # fmt: skip
    values, low, high = (load(builder, place, vector(ir.FloatType(), SIDE)) for place in places)
    inside = builder.and_(
        builder.fcmp_ordered(">=", values, low), builder.fcmp_ordered("<=", values, high)
    )
    return builder.zext(builder.bitcast(inside, I32), I64)


def _lowest_bit(typing_context: Any, number: Any) -> Any:
    """The place of the lowest bit of a uint64 that is set; it must not be 0."""
    del typing_context
    if number != types.uint64:
        return None

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return call(builder, "llvm.cttz.i64", I64, arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), build


lowest_bit: Any = intrinsic(_lowest_bit)
