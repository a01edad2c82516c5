"""How large a FAISS index is where it is written: what grows with each vector, and an IVF's lists,
which are not in proportion while most of them are empty."""

from typing import Any

import numpy as np

from retriever_server.dense.faiss_index import import_faiss

_ID_BYTES = 8
"""Of a position in a list, and of a list's length."""


def bytes_without_lists(index: Any) -> int:
    """Bytes of the index as it is written, but for those of `lists_bytes`."""
    sizes: list[int] = []
    faiss = import_faiss()
    faiss.write_index(index, faiss.PyCallbackIOWriter(lambda data: sizes.append(len(data))))
    return sum(sizes) - lists_bytes(index)


def lists_bytes(index: Any, num_vectors: int | None = None) -> int:
    """Of an IVF's lists, as they are, or as they will be with so many vectors."""
    faiss = import_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is None:
        return 0
    lists: Any = faiss.downcast_InvertedLists(ivf.invlists)
    in_blocks = isinstance(lists, faiss.BlockInvertedLists)  # of 32 vectors, the last half full
    if not in_blocks and not isinstance(lists, faiss.ArrayInvertedLists):
        return 0
    rows, num_bytes = (lists.n_per_block, lists.block_size) if in_blocks else (1, lists.code_size)
    if num_vectors is not None:
        blocks = num_vectors / rows + (ivf.nlist / 2 if in_blocks else 0)
        blocks = max(blocks, min(ivf.nlist, num_vectors))
        return round(blocks * num_bytes) + _ID_BYTES * (num_vectors + ivf.nlist * (not in_blocks))
    held = np.array([lists.list_size(number) for number in range(ivf.nlist)])
    used = int(np.count_nonzero(held))
    table = 0 if in_blocks else _ID_BYTES * (ivf.nlist if used > ivf.nlist // 2 else 2 * used)
    return int((-(-held // rows)).sum()) * num_bytes + _ID_BYTES * int(held.sum()) + table
