"""Products of bytes in compiled loops: 32 rows by 32 queries, exact sums of whole numbers.

Processors since 2019 multiply 64 pairs of bytes in one instruction and add them, four by four, to
sixteen 32-bit sums (AVX512-VNNI; AVX-VNNI does half as many): four times what they do in float32.
The bytes of a passage have no sign, those of a query have one. AVX2 needs three instructions, the
first of which adds pairs to 16-bit numbers and cuts what does not fit; with seven bits of a passage
everything fits.

The instructions are LLVM's, called by name; the processor must have them (`here`), or LLVM ends the
process. Semantics: Intel Architecture Software Developer's Manual, VPDPBUSD, VPMADDUBSW, VPMADDWD.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from retriever_server.dense.bands import SIDE, aligned
from retriever_server.dense.llvm_parts import (
    I8,
    I16,
    I32,
    I64,
    at,
    call,
    data,
    features_here,
    load,
    same,
    shape,
    spread,
    store,
    vector,
)

QUAD = 4
"""Numbers that are added to one 32-bit sum at once."""
LARGEST_DIM = 65_536
"""So many products of two bytes fit into 32 bits."""
_ROW_BYTES = SIDE * 4
_QUADS_OF_A_STEP = SIDE // QUAD


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """One way to multiply bytes."""

    name: str
    lanes: int
    """32-bit sums in a register."""
    rows: int
    """Rows whose sums with two registers of queries are kept in registers."""
    reach: int
    """The bytes of a passage stand for -reach to reach."""
    fused: bool
    """Whether one instruction does it all."""

    @property
    def zero(self) -> int:
        """The byte that stands for 0."""
        return self.reach + 1


VNNI512 = Instructions(name="AVX512-VNNI", lanes=16, rows=8, reach=127, fused=True)
VNNI256 = Instructions(name="AVX-VNNI", lanes=8, rows=4, reach=127, fused=True)
AVX2 = Instructions(name="AVX2", lanes=8, rows=4, reach=63, fused=False)
_NEEDED = {
    VNNI512: ("avx512vnni", "avx512bw", "avx512vl"), VNNI256: ("avxvnni", "avx2"), AVX2: ("avx2",)
}  # fmt: skip


def here() -> list[Instructions]:
    """What this processor has, the fastest first."""
    features = features_here()
    return [kind for kind, needed in _NEEDED.items() if all(features.get(n) for n in needed)]


def packed(codes_QD: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Queries as `multiply` reads them: (groups of 32, D / 32 steps, 8 quads, 32 queries, 4), the
    last group filled up with zeros. D a multiple of 32."""
    num_queries, dim = codes_QD.shape
    groups, steps = -(-num_queries // SIDE), dim // SIDE
    full = np.zeros((groups * SIDE, dim), dtype=np.int8)
    full[:num_queries] = codes_QD
    out = aligned((groups, steps, _QUADS_OF_A_STEP, SIDE, QUAD), np.int8)
    parts = full.reshape(groups, SIDE, steps, _QUADS_OF_A_STEP, QUAD)
    out[:] = parts.transpose(0, 2, 3, 1, 4)
    return out


def start_of(codes_QD: npt.NDArray[np.int8], kind: Instructions) -> npt.NDArray[np.int32]:
    """(groups, 32): what a passage's bytes add to the sums because they have no sign, negated."""
    start = np.zeros((-(-len(codes_QD) // SIDE), SIDE), dtype=np.int32)
    start.ravel()[: len(codes_QD)] = -kind.zero * codes_QD.sum(axis=1, dtype=np.int64)
    return start


def multiply(kind: Instructions) -> Any:
    """A function for compiled code: (codes_BD, row, step, queries, group, num_steps, sums,
    place, facts). Writes to 32 rows of `sums`, from `place` on, the products of rows `row` to
    `row + 31` with the 32 queries of a group: the sum of whole numbers, made float32 and multiplied
    by the row's scale.

    codes_BD: uint8, dim a multiple of 32. queries: `packed`. sums: float32 (rows, 32). facts:
    (scales_B, start), start being int32 (groups, 32) that the sums begin with. All contiguous. step
    must be 0 and num_steps all there are.
    """

    def typed(
        typing_context: Any, codes_BD: Any, row: Any, step: Any, queries: Any, group: Any,
        num_steps: Any, sums: Any, place: Any, facts: Any,
    ) -> Any:  # fmt: skip
        del typing_context
        integers = (row, step, group, num_steps, place)
        if not all(isinstance(one, types.Integer) for one in integers):
            return None
        signature = types.void(
            codes_BD, types.int64, types.int64, queries, types.int64, types.int64, sums,
            types.int64, facts,
        )  # fmt: skip
        return signature, _builder(kind)

    return intrinsic(typed)


def _builder(kind: Instructions) -> Any:
    ints = vector(I32, kind.lanes)
    floats = vector(ir.FloatType(), kind.lanes)
    register_bytes = kind.lanes * 4
    columns = 2 * register_bytes

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, row, _, _, group, num_steps, _, place, facts = arguments
        codes, numbers, out = (
            data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 6)
        )
        scales, starts = (
            data(context, builder, one, builder.extract_value(facts, i))
            for i, one in enumerate(signature.args[8])
        )
        dim = shape(context, builder, signature.args[0], arguments[0])[1]
        steps_of_group = shape(context, builder, signature.args[3], arguments[3])[1]
        first_step = builder.mul(group, steps_of_group)
        numbers = at(builder, numbers, builder.mul(first_step, I64(SIDE * SIDE)))
        starts = at(builder, starts, builder.mul(group, I64(_ROW_BYTES)))
        num_quads = builder.mul(num_steps, I64(_QUADS_OF_A_STEP))
        with cgutils.for_range(builder, I64(SIDE // kind.rows)) as part:
            first = builder.mul(part.index, I64(kind.rows))
            begin = builder.add(row, first)
            part_codes = at(builder, codes, builder.mul(begin, dim))
            part_scales = at(builder, scales, builder.mul(begin, I64(4)))
            part_out = at(builder, out, builder.mul(builder.add(place, first), I64(_ROW_BYTES)))
            for column in range(0, _ROW_BYTES, columns):
                halves = [column, column + register_bytes]
                start = [load(builder, at(builder, starts, half), ints) for half in halves]
                sums = _sums(
                    builder, kind, part_codes, dim, at(builder, numbers, column), num_quads, start
                )
                for i, of_row in enumerate(sums):
                    scale = load(builder, at(builder, part_scales, 4 * i), ir.FloatType())
                    scale = spread(builder, scale, kind.lanes)
                    target = at(builder, part_out, i * _ROW_BYTES)
                    for half, value in zip(halves, of_row, strict=True):
                        product = builder.fmul(builder.sitofp(value, floats), scale)
                        store(builder, product, at(builder, target, half))
        return context.get_dummy_value()

    return build


def _sums(
    builder: Any, kind: Instructions, codes: Any, dim: Any, numbers: Any, num_quads: Any,
    start: list[Any],
) -> list[list[Any]]:  # fmt: skip
    """The whole-number products of kind.rows rows with two registers of queries."""
    ints = vector(I32, kind.lanes)
    kept = [[cgutils.alloca_once(builder, ints) for _ in start] for _ in range(kind.rows)]
    for of_row in kept:
        for place, value in zip(of_row, start, strict=True):
            builder.store(value, place)
    with cgutils.for_range(builder, num_quads) as loop:
        quads = at(builder, numbers, builder.mul(loop.index, I64(SIDE * QUAD)))
        right = [load(builder, at(builder, quads, half * kind.lanes * 4), ints)
                 for half in range(2)]  # fmt: skip
        left = at(builder, codes, builder.mul(loop.index, I64(QUAD)))
        for of_row in kept:
            four = spread(builder, load(builder, left, I32), kind.lanes)
            left = at(builder, left, dim)
            for place, value in zip(of_row, right, strict=True):
                builder.store(_added(builder, kind, builder.load(place), four, value), place)
    return [[builder.load(place) for place in of_row] for of_row in kept]


def _added(builder: Any, kind: Instructions, sums: Any, codes: Any, numbers: Any) -> Any:
    """To each sum the products of its four pairs of bytes."""
    ints = vector(I32, kind.lanes)
    if kind.fused:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * kind.lanes}"
        return call(builder, name, ints, sums, codes, numbers)
    octets, pairs = vector(I8, 4 * kind.lanes), vector(I16, 2 * kind.lanes)
    left, right = (builder.bitcast(value, octets) for value in (codes, numbers))
    by_two = call(builder, "llvm.x86.avx2.pmadd.ub.sw", pairs, left, right)
    return builder.add(sums, call(builder, "llvm.x86.avx2.pmadd.wd", ints, by_two, same(pairs, 1)))
