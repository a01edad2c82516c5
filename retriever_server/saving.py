"""Writes the arrays of an index; a disk that is full ends it with the name of the file."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.files import writing


def save_array(path: Path, array: npt.NDArray) -> None:
    """A `.npy` file. Raises WriteError."""
    with writing(path):
        np.save(path, array, allow_pickle=False)


def mapped_array(path: Path, dtype: npt.DTypeLike, size: int) -> np.memmap:
    """A new `.npy` file of one dimension, mapped to be filled. Raises WriteError where the disk has
    no room for all of it: filling would end the process (SIGBUS)."""
    with writing(path):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
