"""One ranking out of several, by reciprocal ranks (Cormack, Clarke and Büttcher, 2009)."""

from collections import defaultdict
from collections.abc import Sequence

from convsearch.types import Hit

RRF_K = 60
"""The constant of the paper, section 2."""


def fused(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    """All passages of several ranked lists by the sum of `1 / (60 + rank)`, ties by doc_id."""
    scores: defaultdict[str, float] = defaultdict(float)
    for hits in lists:
        for rank, hit in enumerate(hits, 1):
            scores[hit.doc_id] += 1 / (RRF_K + rank)
    hits = [Hit(doc_id=doc_id, score=score) for doc_id, score in scores.items()]
    return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))
