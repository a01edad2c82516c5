"""Reads one numpy array out of a pickle without running anything the pickle asks for.

Earlier projects store embeddings as `pickle.dump(array)`. A pickle can name any function to be
called while it is read, so the names that numpy itself writes for an array are the only ones known
here, and they lead to stand-ins of ours, not to numpy. The bytes of a large array are not read but
left in the file and memory-mapped, so an array may be larger than memory.
"""

# The unpickler written in Python has no types of its own, only those of the one written in C.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from convsearch.errors import DataError, MissingFileError

_MAPPED_BYTES = 2**20
"""From this size on, bytes stay in the file."""
_KINDS = "fiu"
"""Floats and integers; objects and strings are refused."""
_DUMP_REMEDY = (
    "it must hold one numpy array of numbers, written by pickle.dump; save the array again with "
    "pickle.dump(array, file, protocol=4)"
)


@dataclass(frozen=True)
class _Stored:
    """Bytes that stay in the file."""

    offset: int
    size: int


class _Type:
    """Stands for numpy.dtype: keeps the code and the byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple) -> None:
        self.order = {"|": "=", ">": ">", "<": "<"}[str(state[1])]


class _Array:
    """Stands for numpy.ndarray: keeps shape, type and where the numbers are."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.type: object = None
        self.fortran, self.data = False, None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.type, self.fortran, self.data = state


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: object, kind: object, shape: tuple, order: object) -> _Array:
    """What protocol 5 calls."""
    array = _Array()
    array.shape, array.type, array.fortran, array.data = shape, kind, order == "F", data
    return array


def _encode(text: str, encoding: str) -> bytes:
    """What protocols below 3 call for bytes; the encoding is latin1."""
    return text.encode(encoding)


_KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
} | {
    (f"numpy.{core}.{module}", name): stand_in
    for core in ("core", "_core")
    for module, name, stand_in in (
        ("multiarray", "_reconstruct", _reconstruct),
        ("numeric", "_frombuffer", _from_buffer),
    )
}


class _ArrayUnpickler(pickle._Unpickler):
    """Python's own unpickler in Python, with a short list of names and large bytes left behind."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._source = file

    def find_class(self, module: str, name: str) -> object:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it asks for the object {pid!r}")

    def _load_large(self, size: int) -> None:
        framed = self._unframer.current_frame
        if framed is not None and framed.read(1):
            framed.seek(-1, 1)
            self.append(self.read(size))
        elif size < _MAPPED_BYTES:
            self.append(self.read(size))
        else:
            self.append(_Stored(self._source.tell(), size))
            self._source.seek(size, 1)

    def load_binbytes(self) -> None:
        self._load_large(struct.unpack("<I", self.read(4))[0])

    def load_binbytes8(self) -> None:
        self._load_large(struct.unpack("<Q", self.read(8))[0])

    dispatch[pickle.BINBYTES[0]] = load_binbytes
    dispatch[pickle.BINBYTES8[0]] = load_binbytes8
    dispatch[pickle.BYTEARRAY8[0]] = load_binbytes8


def read_pickled_array(path: Path) -> np.ndarray:
    """The array of a pickle, read-only; large ones memory-mapped.

    Raises MissingFileError, or DataError where the file is damaged, holds anything but one array of
    numbers, or asks for anything else to be run.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; name the embeddings of the earlier project")
    try:
        with path.open("rb") as file:
            array = _ArrayUnpickler(file).load()
        return _array_of(array, path)
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError,
        AttributeError, LookupError, MemoryError, OverflowError, struct.error,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: refused ({reason}); {_DUMP_REMEDY}") from None


def _array_of(found: object, path: Path) -> np.ndarray:
    if not isinstance(found, _Array) or not isinstance(found.type, _Type):
        raise pickle.UnpicklingError("not an array")
    kind = np.dtype(found.type.code).newbyteorder(found.type.order)  # type: ignore[arg-type]
    if kind.kind not in _KINDS:
        raise pickle.UnpicklingError(f"an array of {found.type.code}, not of numbers")
    shape = tuple(int(size) for size in found.shape)
    needed = int(np.prod(shape, dtype=object)) * kind.itemsize
    order = "F" if found.fortran else "C"
    data = found.data
    if isinstance(data, _Stored):
        if data.size != needed or data.offset + data.size > path.stat().st_size:
            raise pickle.UnpicklingError("the file is cut short")
        return np.memmap(path, kind, "r", data.offset, shape, order)
    if not isinstance(data, bytes | bytearray) or len(data) != needed:
        raise pickle.UnpicklingError("the numbers are not those of the shape")
    return np.frombuffer(bytes(data), dtype=kind).reshape(shape, order=order)
