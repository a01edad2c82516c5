"""Small pieces of LLVM's language that the compiled loops of this package are built from."""

import platform
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, config

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES = I8.as_pointer()


def features_here() -> dict[str, bool]:
    """What the processor can do, by LLVM's names; nothing where numba compiles for another one, or
    not at all, or where this is no x86-64."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {}
    if any(getattr(config, name) for name in ("DISABLE_JIT", "CPU_NAME", "CPU_FEATURES")):
        return {}
    return dict(binding.get_host_cpu_features())


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """So many numbers side by side."""
    return ir.VectorType(element, lanes)


def same(kind: ir.VectorType, value: float) -> ir.Constant:
    """A vector of one number."""
    return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)


def spread(builder: Any, value: Any, lanes: int) -> Any:
    """A number in all lanes of a vector."""
    nothing = ir.Constant(vector(value.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, value, I32(0))
    return builder.shuffle_vector(first, nothing, same(vector(I32, lanes), 0))


def call(builder: Any, name: str, result: ir.Type, *arguments: Any) -> Any:
    """Calls one of LLVM's own functions."""
    kinds = [argument.type for argument in arguments]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


def data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """The address of an array's first byte."""
    return builder.bitcast(context.make_array(kind)(context, builder, value).data, _BYTES)


def shape(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """An array's shape."""
    found = context.make_array(kind)(context, builder, value).shape
    return cgutils.unpack_tuple(builder, found, kind.ndim)


def at(builder: Any, base: Any, offset: Any) -> Any:
    """The address so many bytes on; offset: of LLVM's or a plain integer."""
    return builder.gep(base, [I64(offset) if isinstance(offset, int) else offset])


def load_lanes(builder: Any, numbers: Any, place: Any, lanes: int) -> Any:
    """So many numbers from a place on, of the address of an array's first."""
    return load(builder, builder.gep(numbers, [place]), vector(numbers.type.pointee, lanes))


def load(builder: Any, address: Any, kind: ir.Type) -> Any:
    """What lies at an address, which need not be a multiple of its size."""
    return builder.load(builder.bitcast(address, kind.as_pointer()), align=1)


def store(builder: Any, value: Any, address: Any) -> None:
    """To an address, which need not be a multiple of its size."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=1)
