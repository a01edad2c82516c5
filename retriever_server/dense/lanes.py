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

LANES = 16
"""Sums of one inner product that run side by side; fixed, so a score has one value everywhere."""
_I32 = ir.IntType(32)
_INTS = ir.VectorType(_I32, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)

Decode = Callable[[Any, Any], Any]
"""From an IR builder and the stored numbers (LANES x int32) to their values (LANES x float)."""


def _same(element: ir.Type, value: float) -> ir.Constant:
    """A vector of one number."""
    return ir.Constant(ir.VectorType(element, LANES), [ir.Constant(element, value)] * LANES)


def _float32(builder: Any, bits: Any) -> Any:
    return builder.bitcast(bits, _FLOATS)


def _bfloat16(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(bits, _same(_I32, 16)), _FLOATS)


def _float16(builder: Any, bits: Any) -> Any:
    """See `kernels._number`: without the processor's conversion, which not all have."""
    size = builder.shl(builder.and_(bits, _same(_I32, 0x7FFF)), _same(_I32, 13))
    scaled = builder.fmul(builder.bitcast(size, _FLOATS), _same(ir.FloatType(), 2.0**112))
    sign = builder.shl(builder.lshr(bits, _same(_I32, 15)), _same(_I32, 31))
    return builder.bitcast(builder.xor(builder.bitcast(scaled, _INTS), sign), _FLOATS)


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
                stored = _load(builder, bits.data, at)
                if stored.type != _INTS:
                    stored = builder.zext(stored, _INTS)
                values = builder.fpext(decode(builder, stored), _DOUBLES)
                products = builder.fmul(values, _load(builder, query.data, at))
                builder.store(builder.fadd(builder.load(sums), products), sums)
            found = builder.load(sums)
            lanes = [builder.extract_element(found, _I32(lane)) for lane in range(LANES)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(types.float64, LANES)(bits_D, query_D), build

    return lane_sums


def _load(builder: Any, data: Any, at: Any) -> Any:
    """LANES numbers of an array from a place on, which need not lie at a multiple of their size."""
    element = data.type.pointee
    whole = builder.bitcast(builder.gep(data, [at]), ir.VectorType(element, LANES).as_pointer())
    return builder.load(whole, align=1)


float32_sums = _sums_of(_float32)
bfloat16_sums = _sums_of(_bfloat16)
float16_sums = _sums_of(_float16)
