"""The sums of `kernels.exact_score`, sixteen side by side in vector registers.

Written in LLVM's own vectors, because numba leaves the plain loop scalar. Each lane multiplies and
adds one number after another in double precision, as the loop would, so the bits are the same on
every processor: nothing is reassociated or fused.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from retriever_server.dense.llvm_parts import I32, load_lanes, same, vector

LANES = 16
"""Sums of one inner product that run side by side; fixed, so a score has one value everywhere."""
_INTS, _FLOATS = vector(I32, LANES), vector(ir.FloatType(), LANES)
_DOUBLES = vector(ir.DoubleType(), LANES)

Decode = Callable[[Any, Any], Any]
"""From an IR builder and the stored numbers (LANES x int32) to their values (LANES x float)."""


def float32(builder: Any, bits: Any) -> Any:
    return builder.bitcast(bits, _FLOATS)


def bfloat16(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(bits, same(_INTS, 16)), _FLOATS)


def float16(builder: Any, bits: Any) -> Any:
    """See `kernels._number`: without the processor's conversion, which not all have."""
    size = builder.shl(builder.and_(bits, same(_INTS, 0x7FFF)), same(_INTS, 13))
    scaled = builder.fmul(builder.bitcast(size, _FLOATS), same(_FLOATS, 2.0**112))
    sign = builder.shl(builder.lshr(bits, same(_INTS, 15)), same(_INTS, 31))
    return builder.bitcast(builder.xor(builder.bitcast(scaled, _INTS), sign), _FLOATS)


def numbers(builder: Any, stored: Any, place: Any, decode: Decode) -> Any:
    """LANES x float: the numbers of an array of stored ones from a place on."""
    bits = load_lanes(builder, stored, place, LANES)
    return decode(builder, bits if bits.type == _INTS else builder.zext(bits, _INTS))


def _sums_of(decode: Decode) -> Any:
    """A function for compiled code: (stored numbers, query) to the LANES sums of their products,
    up to the last whole run of LANES. Both contiguous, of one length; the query float64."""

    @intrinsic
    def lane_sums(typing_context: Any, bits_D: Any, query_D: Any) -> Any:
        del typing_context
        if bits_D.layout != "C" or query_D.layout != "C" or query_D.dtype != types.float64:
            return None  # numba then names the types it was asked for

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            bits, query = (
                context.make_array(kind)(context, builder, argument)
                for kind, argument in zip(signature.args, arguments, strict=True)
            )
            sums = cgutils.alloca_once_value(builder, ir.Constant(_DOUBLES, None))
            [length] = cgutils.unpack_tuple(builder, bits.shape, 1)
            runs = builder.udiv(length, length.type(LANES))
            with cgutils.for_range(builder, runs) as run:
                at = builder.mul(run.index, length.type(LANES))
                values = builder.fpext(numbers(builder, bits.data, at, decode), _DOUBLES)
                products = builder.fmul(values, load_lanes(builder, query.data, at, LANES))
                builder.store(builder.fadd(builder.load(sums), products), sums)
            found = builder.load(sums)
            lanes = [builder.extract_element(found, I32(lane)) for lane in range(LANES)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(types.float64, LANES)(bits_D, query_D), build

    return lane_sums


float32_sums = _sums_of(float32)
bfloat16_sums = _sums_of(bfloat16)
float16_sums = _sums_of(float16)
