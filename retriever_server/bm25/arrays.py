"""The arrays of a BM25 index: what they mean, and their files.

Passages stand in blocks of 4,096. The postings of a term are in the order of passages; those of one
block are a segment. For each segment there is an entry: block, number of postings, highest cap.
Four bytes a posting, five an entry and 28 a term, all memory-mapped.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError

BLOCK = 4096
"""Passages of a block: its sums (16 kB) stay in the first cache, its positions fit in two bytes."""
MAX_PASSAGES = BLOCK * 2**16
"""268 million: the number of a block has two bytes."""
TF_OVERFLOW = 255
"""Stands in `tfs` for any frequency from 255 on; the frequency itself is in the overflow table."""


class Bm25Arrays(NamedTuple):
    """P postings of V terms in E segments over N passages. Terms are numbered by key."""

    keys: npt.NDArray[np.uint64]
    """(V, 2), sorted: hash of each term, see `term_keys`."""
    term_entries: npt.NDArray[np.uint32]
    """(V + 1): entries of term t are `term_entries[t]:term_entries[t + 1]`."""
    term_postings: npt.NDArray[np.int64]
    """(V + 1): the same of postings; the difference is the document frequency."""
    entry_blocks: npt.NDArray[np.uint16]
    """(E): block of the segment, rising within a term."""
    entry_sizes: npt.NDArray[np.uint16]
    """(E): postings of the segment, 1 to 4,096."""
    entry_caps: npt.NDArray[np.uint8]
    """(E): highest cap of the segment."""
    docs: npt.NDArray[np.uint16]
    """(P): position of the passage within its block."""
    tfs: npt.NDArray[np.uint8]
    """(P): how often the term occurs in the passage."""
    caps: npt.NDArray[np.uint8]
    """(P): upper bound of the score as a share of the term's weight, see `similarity.caps`."""
    overflow_at: npt.NDArray[np.int64]
    """Sorted: postings whose frequency does not fit in a byte."""
    overflow_tf: npt.NDArray[np.int32]
    """Their frequencies."""
    lengths: npt.NDArray[np.uint8]
    """(N): code of the length of each passage, see `similarity.length_codes`."""


def open_arrays(folder: Path) -> Bm25Arrays:
    """Memory-maps the arrays of an index folder. Raises DataError where they do not fit together;
    only their shapes are read, so this takes the same time for every size."""
    loaded = {name: _open(folder, name, dtype) for name, dtype in _DTYPES.items()}
    arrays = Bm25Arrays(**loaded)
    num_terms, num_entries, num_postings = (
        len(arrays.keys),
        len(arrays.entry_blocks),
        len(arrays.docs),
    )
    fits = (
        arrays.keys.shape == (num_terms, 2)
        and len(arrays.term_entries) == len(arrays.term_postings) == num_terms + 1
        and arrays.term_entries[-1] == len(arrays.entry_sizes) == len(arrays.entry_caps)
        and arrays.term_entries[-1] == num_entries
        and arrays.term_postings[-1] == len(arrays.tfs) == len(arrays.caps) == num_postings
        and len(arrays.overflow_at) == len(arrays.overflow_tf)
    )
    if not fits:
        raise DataError(
            f"{folder}: the arrays of the index differ in length; rebuild it with "
            '"convsearch index"'
        )
    return arrays


def array_path(folder: Path, name: str) -> Path:
    """File of the array with this name of `Bm25Arrays`."""
    return folder / f"{name}.npy"


_DTYPES = {
    "keys": np.uint64,
    "term_entries": np.uint32,
    "term_postings": np.int64,
    "entry_blocks": np.uint16,
    "entry_sizes": np.uint16,
    "entry_caps": np.uint8,
    "docs": np.uint16,
    "tfs": np.uint8,
    "caps": np.uint8,
    "overflow_at": np.int64,
    "overflow_tf": np.int32,
    "lengths": np.uint8,
}


def _open(folder: Path, name: str, dtype: type) -> npt.NDArray[Any]:
    path = array_path(folder, name)
    try:
        # a plain array over the mapping: the compiled kernels know no other kind
        array = np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: this file of the index cannot be read ({error}); rebuild it with "
            '"convsearch index"'
        ) from None
    if array.dtype != dtype:
        raise DataError(
            f"{path}: holds {array.dtype} instead of {np.dtype(dtype)}; rebuild the index with "
            '"convsearch index"'
        )
    return array
