"""Memory that FAISS takes to train an index and to add to it: what its C++ copies, by its sources.

Not counted are additive codes (PRQ, PLSQ, RQ), whose training holds many candidates for each.
"""

from typing import Any

from retriever_server.cores import num_cores
from retriever_server.dense.faiss_index import CODE_ROWS, coder, import_faiss, transforms

_FLOAT = 4
_TABLE_DIMS = 16
"""Dimensions of a code from which FAISS makes a table of distances to all centroids."""
_ORDER_COPIES = 4
"""Squares of doubles, codes x codes, in `PolysemousTraining`."""
_ROW_COPIES = 3
"""Of a block that is added: as it is, transformed, and less its centroid."""
_FIXED = 64 << 20
"""What BLAS and threads take beside that."""


def training_bytes(index: Any, rows: int) -> int:
    """To train an empty index on a sample, the sample included; nothing where there is nothing to
    train."""
    if index.is_trained:
        return 0
    before = most = 0  # of the transformed sample, and of all copies at one moment
    for transform in transforms(index):
        after = _FLOAT * rows * transform.d_out
        most = max(most, before + _transform(transform, rows), before + after)
        before = after
    most = max(most, before + _coder(coder(index), rows))
    return _FIXED + _FLOAT * rows * index.d + most


def adding_bytes(index: Any, rows: int) -> int:
    """To add a block, beside the index itself."""
    inner = coder(index)
    tables = _tables(inner.pq, rows) if hasattr(inner, "pq") else 0
    return _FIXED + _ROW_COPIES * _FLOAT * rows * index.d + tables


def _transform(transform: Any, rows: int) -> int:
    if transform.is_trained:
        return 0
    width, out = transform.d_in, transform.d_out
    if hasattr(transform, "niter_pq"):  # OPQ: rows, less their mean, and two rotations back
        used, subvectors = min(rows, transform.max_train_points), transform.M
        table = 256 * subvectors if out >= _TABLE_DIMS * subvectors else 0
        return _FLOAT * (used * (4 * width + 2 * out) + min(used, CODE_ROWS) * table)
    return _FLOAT * 2 * rows * width  # PCA and its like


def _coder(index: Any, rows: int) -> int:
    ivf = import_faiss().try_extract_index_ivf(index)
    if ivf is None:
        return _codes(index, rows)
    at_most = ivf.cp.max_points_per_centroid * ivf.nlist
    drawn = at_most if rows > at_most else 0
    coarse = drawn * ivf.d + 3 * ivf.nlist * ivf.d
    used = min(rows, ivf.train_encoder_num_vectors() or rows)
    residuals = (used if used < rows else 0) + (used if ivf.by_residual else 0)
    return _FLOAT * max(coarse, residuals * ivf.d) + 16 * rows + _codes(ivf, used)


def _codes(index: Any, rows: int) -> int:
    if not hasattr(index, "pq"):
        return 0
    pq = index.pq
    pieces = 2 * rows * pq.dsub + 3 * pq.ksub * pq.d
    ordered = getattr(index, "do_polysemous_training", False)
    order = _ORDER_COPIES * 8 * pq.ksub**2 * min(pq.M, num_cores()) if ordered else 0
    return _FLOAT * pieces + order


def _tables(pq: Any, rows: int) -> int:
    return _FLOAT * min(rows, CODE_ROWS) * pq.M * pq.ksub if pq.dsub >= _TABLE_DIMS else 0
