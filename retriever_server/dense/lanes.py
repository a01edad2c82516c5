"""Loops over stored vectors with sixteen numbers side by side in vector registers.

Written in LLVM's own vectors, because numba leaves the plain loops scalar. In the sums of
`kernels.exact_score` each lane multiplies and adds one number after another in double precision, as
the loop would, so the bits are the same on every processor: nothing is reassociated or fused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from retriever_server.dense.llvm_parts import I32, I64, load_lanes, same, shape, vector

LANES = 16
"""Sums of one inner product that run side by side; fixed, so a score has one value everywhere."""
INTS, FLOATS = vector(I32, LANES), vector(ir.FloatType(), LANES)
_DOUBLES = vector(ir.DoubleType(), LANES)

Decode = Callable[[Any, Any], Any]
"""From an IR builder and the stored numbers (LANES x int32) to their values (LANES x float)."""


def float32(builder: Any, bits: Any) -> Any:
    return builder.bitcast(bits, FLOATS)


def bfloat16(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(bits, same(INTS, 16)), FLOATS)


def float16(builder: Any, bits: Any) -> Any:
    """See `kernels._number`: without the processor's conversion, which not all have."""
    size = builder.shl(builder.and_(bits, same(INTS, 0x7FFF)), same(INTS, 13))
    scaled = builder.fmul(builder.bitcast(size, FLOATS), same(FLOATS, 2.0**112))
    sign = builder.shl(builder.lshr(bits, same(INTS, 15)), same(INTS, 31))
    return builder.bitcast(builder.xor(builder.bitcast(scaled, INTS), sign), FLOATS)


def numbers(builder: Any, stored: Any, place: Any, decode: Decode) -> Any:
    """LANES x float: the numbers of an array of stored ones from a place on."""
    bits = load_lanes(builder, stored, place, LANES)
    return decode(builder, bits if bits.type == INTS else builder.zext(bits, INTS))


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


@contextmanager
def each_run(context: Any, builder: Any, kind: Any, array: Any) -> Iterator[list[Any]]:
    """A loop over an array of one dimension: the places of two runs of LANES, which do not wait for
    each other."""
    [length] = shape(context, builder, kind, array)
    with cgutils.for_range(builder, builder.udiv(length, I64(2 * LANES))) as run:
        first = builder.mul(run.index, I64(2 * LANES))
        yield [first, builder.add(first, I64(LANES))]


def firsts(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """The addresses of the arrays' first numbers."""
    return [
        context.make_array(kind)(context, builder, argument).data
        for kind, argument in zip(signature.args, arguments, strict=True)
        if isinstance(kind, types.Array)
    ]


class Fold:
    """A number for each lane of both runs, folded into one at the end."""

    def __init__(self, builder: Any, join: Any) -> None:
        """join: of two vectors; it begins with zeros."""
        self._builder, self._join = builder, join
        self._kept = [cgutils.alloca_once(builder, FLOATS) for _ in range(2)]
        for kept in self._kept:
            builder.store(same(FLOATS, 0), kept)

    def take(self, run: int, value: Any) -> None:
        """Joins a vector to a run's."""
        joined = self._join(self._builder.load(self._kept[run]), value)
        self._builder.store(joined, self._kept[run])

    def joined(self) -> Any:
        """One number."""
        value = self._join(*map(self._builder.load, self._kept))
        lanes = LANES
        while lanes > 1:
            lanes //= 2
            upper = ir.Constant(vector(I32, LANES), [(i + lanes) % LANES for i in range(LANES)])
            value = self._join(value, self._builder.shuffle_vector(value, value, upper))
        return self._builder.extract_element(value, I32(0))


def _product_of(decode: Decode) -> Any:
    """A function for compiled code: (stored numbers, query) to the sum of their products in
    float32, up to the last whole pair of runs. Both contiguous, of one length; the query float32.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, query = firsts(context, builder, signature, arguments)
        products = Fold(builder, builder.fadd)
        with each_run(context, builder, signature.args[0], arguments[0]) as places:
            for run, place in enumerate(places):
                values = numbers(builder, bits, place, decode)
                values = builder.fmul(values, load_lanes(builder, query, place, LANES))
                products.take(run, values)
        return products.joined()

    @intrinsic
    def product(typing_context: Any, bits_D: Any, query_D: Any) -> Any:
        del typing_context
        if bits_D.layout != "C" or query_D.layout != "C" or query_D.dtype != types.float32:
            return None
        return types.float32(bits_D, query_D), build

    return product


float32_product = _product_of(float32)
bfloat16_product = _product_of(bfloat16)
float16_product = _product_of(float16)
float32_sums = _sums_of(float32)
bfloat16_sums = _sums_of(bfloat16)
float16_sums = _sums_of(float16)
