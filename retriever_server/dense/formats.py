"""The number formats vectors are stored in: bfloat16, float16, float32.

numpy knows no bfloat16, so its bits are kept as uint16: the upper half of a float32.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from convsearch.errors import ConfigError

Format = Literal["bfloat16", "float16", "float32"]
FORMATS: tuple[Format, ...] = get_args(Format)
Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint16 | np.float16 | np.float32]
"""Vectors as they lie in a file."""

STORED = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}
"""numpy's type of the file for each format."""
CODES = {"float32": 0, "bfloat16": 1, "float16": 2}
"""Numbers of the formats for the compiled loops."""


def check_format(name: str) -> Format:
    """Raises ConfigError for a format that is none of the three."""
    for known in FORMATS:
        if name == known:
            return known
    raise ConfigError(f"unknown format of vectors {name!r}; choose one of {', '.join(FORMATS)}")


def item_bytes(name: Format) -> int:
    """Bytes of one number."""
    return np.dtype(STORED[name]).itemsize


def encode(values: Floats, name: Format) -> Raw:
    """Rounds to the nearest number of the format, ties to even. What is too large becomes infinite,
    and what is not finite stays so; the caller checks."""
    if name == "float32":
        return np.ascontiguousarray(values, dtype=np.float32)
    if name == "float16":
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype=np.float32).astype(np.float16)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    quiet_nan = np.uint16(0x7FC0)
    return np.where(np.isnan(values), quiet_nan, rounded.astype(np.uint16))


def decode(raw: Raw, name: Format) -> Floats:
    """The same numbers as float32, exactly."""
    if name == "bfloat16":
        return (np.asarray(raw).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(raw).astype(np.float32)


def bits_of(raw: Raw) -> npt.NDArray[np.uint16 | np.uint32]:
    """The same memory as unsigned integers, which the compiled loops read."""
    return raw.view(np.uint32 if raw.dtype == np.float32 else np.uint16)


def code_of(raw: Raw) -> int:
    """See `CODES`."""
    if raw.dtype == np.float32:
        return CODES["float32"]
    return CODES["float16" if raw.dtype == np.float16 else "bfloat16"]
