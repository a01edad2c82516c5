"""Rows of passages as bytes, with bounds on what the bytes leave out.

A row x becomes z = (x - m) / t: in each dimension the distance from the mean m, in units of that
dimension's spread t. z is rounded to s c, c whole numbers from -reach to reach and s the row's own
scale, so that its largest |z| is reached. The bounds include the rounding of float32.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from retriever_server.dense.lanes import (
    FLOATS,
    INTS,
    LANES,
    Decode,
    Fold,
    bfloat16,
    each_run,
    firsts,
    float16,
    float32,
    numbers,
)
from retriever_server.dense.llvm_parts import I8, call, load_lanes, spread, store, vector

_BYTES = vector(I8, LANES)
UNKNOWN = 1e200
"""Above any length that can be told: the bound where float32 is too small for a row. Not infinite,
because nothing times that is no number."""
_ROUNDING = 2.0**-21
"""More than z and s c err by in float32, as a share of z: five roundings of 2^-24."""
_FLUSHED = 2.0**-62
"""Numbers whose squares float32 may not hold are smaller."""


@njit(nogil=True)
def code_rows(bits_BD, code, mean_D, inverse_D, reach, z_D, codes_BD, scales_B, bounds):
    """Codes of the rows of a block, and their scales.

    bits_BD: see `formats.bits_of`; code: see `formats.CODES`; inverse_D: 1 / t; float32 like
    mean_D. z_D: room for a row. The dimension is a multiple of 32. codes_BD: c + reach + 1.
    bounds: [0] becomes an upper bound on |z| of all rows, [1] one on |z - s c|; both UNKNOWN where
    a row is too large for float32.
    """
    reach = np.float32(reach)
    sum_rounding = 1 + 2.0**-24 * bits_BD.shape[1]
    flushed = _FLUSHED * np.sqrt(bits_BD.shape[1])
    bounds[:] = 0
    for row in range(bits_BD.shape[0]):
        if code == 0:
            largest, squares = _centre_float32(bits_BD[row], mean_D, inverse_D, z_D)
        elif code == 1:
            largest, squares = _centre_bfloat16(bits_BD[row], mean_D, inverse_D, z_D)
        else:
            largest, squares = _centre_float16(bits_BD[row], mean_D, inverse_D, z_D)
        inverse = reach / largest if largest > 0 else np.float32(0)
        left = _round(z_D, inverse, reach + np.float32(1), codes_BD[row])
        scales_B[row] = largest / reach
        length = np.sqrt(np.float64(squares) * sum_rounding) * (1 + _ROUNDING) + flushed
        left_out = np.float64(scales_B[row]) * np.sqrt(np.float64(left) * sum_rounding)
        left_out += _ROUNDING * length
        if not np.isfinite(length + left_out + inverse):
            scales_B[row], length, left_out = 0, UNKNOWN, UNKNOWN
        bounds[0], bounds[1] = max(bounds[0], length), max(bounds[1], left_out)


def _centring(decode: Decode) -> Any:
    """A function for compiled code: (bits_D, mean_D, inverse_D, z_D) writes z and returns the
    largest |z| and the sum of squares."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, mean, inverse, z = firsts(context, builder, signature, arguments)

        def larger(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_unordered(">", one, other), one, other)

        largest, squares = Fold(builder, larger), Fold(builder, builder.fadd)
        with each_run(context, builder, signature.args[0], arguments[0]) as places:
            for run, place in enumerate(places):
                value = numbers(builder, bits, place, decode)
                value = builder.fsub(value, load_lanes(builder, mean, place, LANES))
                value = builder.fmul(value, load_lanes(builder, inverse, place, LANES))
                store(builder, value, builder.gep(z, [place]))
                largest.take(run, call(builder, f"llvm.fabs.v{LANES}f32", FLOATS, value))
                squares.take(run, builder.fmul(value, value))
        return context.make_tuple(
            builder, signature.return_type, [largest.joined(), squares.joined()]
        )

    @intrinsic
    def centre(typing_context: Any, bits_D: Any, mean_D: Any, inverse_D: Any, z_D: Any) -> Any:
        del typing_context
        return types.UniTuple(types.float32, 2)(bits_D, mean_D, inverse_D, z_D), build

    return centre


_centre_float32 = _centring(float32)
_centre_bfloat16 = _centring(bfloat16)
_centre_float16 = _centring(float16)


def _rounding(typing_context: Any, z_D: Any, inverse: Any, zero: Any, codes_D: Any) -> Any:
    """Writes the whole numbers nearest to z `inverse`, plus `zero`, as bytes; returns the sum of
    squares of what they leave out."""
    del typing_context
    if inverse != types.float32 or zero != types.float32:
        return None
    return types.float32(z_D, inverse, zero, codes_D), _build_rounding


_round: Any = intrinsic(_rounding)


def _build_rounding(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    z, codes = firsts(context, builder, signature, arguments)
    inverse, zero = (spread(builder, arguments[i], LANES) for i in (1, 2))
    squares = Fold(builder, builder.fadd)
    with each_run(context, builder, signature.args[0], arguments[0]) as places:
        for run, place in enumerate(places):
            value = builder.fmul(load_lanes(builder, z, place, LANES), inverse)
            whole = call(builder, f"llvm.rint.v{LANES}f32", FLOATS, value)
            left = builder.fsub(value, whole)
            squares.take(run, builder.fmul(left, left))
            code = builder.fptosi(builder.fadd(whole, zero), INTS)
            store(builder, builder.trunc(code, _BYTES), builder.gep(codes, [place]))
    return squares.joined()
