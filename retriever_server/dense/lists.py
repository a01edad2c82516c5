"""Exact top lists over stored vectors: FAISS for each block, exact scores for what can be in them.

FAISS computes in float32, so it errs by at most gamma_D |q||x| (see `exact_rank`). Every passage
whose product is within twice that of the last place is scored again by the definition, so lists
agree with ranks, ties included.
"""

import numpy as np
import numpy.typing as npt

from convsearch.errors import DependencyError, install_command
from retriever_server.dense.filters import FLOAT32_UNIT, as_float32, gamma
from retriever_server.dense.formats import Floats
from retriever_server.dense.vectors import Block, Vectors

_BLOCK_ROWS = 16_384
_SPARE_HITS = 32
"""Hits fetched beyond topk for ties and near-ties; more where these do not suffice."""
Ints = npt.NDArray[np.int64]
TopList = tuple[Ints, npt.NDArray[np.float64]]
"""Positions, best first, and their exact scores."""


def top_lists(
    vectors: Vectors, id_order_N: npt.NDArray[np.integer], queries_QD: Floats, topk: int
) -> list[TopList]:
    """For each query the positions of its topk passages, best first, and their exact scores."""
    found = []
    for query_D, near in zip(queries_QD, _candidates(vectors, queries_QD, topk), strict=True):
        scores = vectors.scores(query_D, near)
        order = np.lexsort((np.asarray(id_order_N[near]), -scores))[:topk]
        found.append((near[order], scores[order]))
    return found


def _candidates(vectors: Vectors, queries_QD: Floats, topk: int) -> list[Ints]:
    """For each query the positions of all passages that can be among its topk."""
    lengths_Q = np.linalg.norm(queries_QD.astype(np.float64), axis=1)
    reach_Q = 2 * gamma(vectors.dim + 1, FLOAT32_UNIT) * lengths_Q * vectors.longest * (1 + 1e-6)
    depth = min(topk, len(vectors))
    kept_products = np.empty((len(queries_QD), 0), dtype=np.float32)
    kept_positions = np.empty((len(queries_QD), 0), dtype=np.int64)
    cut_Q = np.full(len(queries_QD), -np.inf)
    for block in vectors.blocks(_BLOCK_ROWS):
        products, rows = _search(block, queries_QD, depth + _SPARE_HITS, depth, cut_Q, reach_Q)
        kept_products = np.concatenate((kept_products, products), axis=1)
        kept_positions = np.concatenate((kept_positions, rows + block.first), axis=1)
        if kept_products.shape[1] > depth:
            best = -np.partition(-kept_products, depth - 1, axis=1)[:, depth - 1]
            cut_Q = np.maximum(cut_Q, best - reach_Q)
            kept_products, kept_positions = _drop(kept_products, kept_positions, cut_Q)
    return [
        positions[products >= cut]
        for products, positions, cut in zip(kept_products, kept_positions, cut_Q, strict=True)
    ]


def _search(
    block: Block, queries_QD: Floats, fetched: int, depth: int,
    cut_Q: npt.NDArray[np.float64], reach_Q: npt.NDArray[np.float64],
) -> tuple[Floats, Ints]:  # fmt: skip
    """Products and rows of a block, at least all that can be among the topk."""
    try:
        import faiss
    except ImportError:
        raise DependencyError(
            f"faiss is not installed; run {install_command('retriever')}"
        ) from None
    values_BD = as_float32(block)
    fetched = min(fetched, len(values_BD))
    while True:
        products, rows = faiss.knn(
            queries_QD, values_BD, fetched, metric=faiss.METRIC_INNER_PRODUCT
        )
        if fetched == len(values_BD):
            return products, rows
        least_Q = np.maximum(cut_Q, products[:, depth - 1] - reach_Q)
        if bool((products[:, -1] < least_Q).all()):
            return products, rows
        fetched = min(len(values_BD), 2 * fetched)


def _drop(products: Floats, positions: Ints, cut_Q: npt.NDArray[np.float64]) -> tuple[Floats, Ints]:
    """The best columns alone, as many as the query needs that keeps most."""
    kept = int((products >= cut_Q[:, None]).sum(axis=1).max())
    if kept >= products.shape[1]:
        return products, positions
    chosen = np.argpartition(-products, kept - 1, axis=1)[:, :kept]
    return np.take_along_axis(products, chosen, 1), np.take_along_axis(positions, chosen, 1)
