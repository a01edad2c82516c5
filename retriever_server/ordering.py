"""One order of passages for every engine: score falling, then doc_id ascending.

`rank_of_best` and `best_positions` take the scores of all passages and agree on every rank, ties
included, because both use exactly this order.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def id_order(doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each position its place among all ids sorted ascending, as strings."""
    order = np.empty(len(doc_ids), dtype=np.int64)
    order[sorted(range(len(doc_ids)), key=doc_ids.__getitem__)] = np.arange(len(doc_ids))
    return order


def rank_of_best(
    scores_N: Scores, id_order_N: npt.NDArray[np.int64], golds: Sequence[int], topk: int
) -> int | None:
    """1-based rank of the best gold position; None where it matched nothing or is beyond topk.

    A score of 0 or below means that the passage does not match.
    """
    best = min(golds, key=lambda g: (-scores_N[g], id_order_N[g]))
    score = scores_N[best]
    if not score > 0:
        return None
    beaten_by = int(np.count_nonzero(scores_N > score))
    if beaten_by >= topk:
        return None
    tied = np.flatnonzero(scores_N == score)
    rank = 1 + beaten_by + int(np.count_nonzero(id_order_N[tied] < id_order_N[best]))
    return rank if rank <= topk else None


def best_positions(
    scores_N: Scores, id_order_N: npt.NDArray[np.int64], topk: int
) -> npt.NDArray[np.int64]:
    """Positions of the topk matching passages, best first; fewer where fewer match."""
    matching = np.flatnonzero(scores_N > 0)
    if len(matching) > topk:
        cut = np.partition(scores_N[matching], len(matching) - topk)[len(matching) - topk]
        matching = matching[scores_N[matching] >= cut]  # with all that tie at the cut
    order = np.lexsort((id_order_N[matching], -scores_N[matching]))
    return matching[order[:topk]]
