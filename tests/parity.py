"""Two engines over one corpus must give the same ranks: the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

from synthetic_corpus import Call

from convsearch.retrieval import Retriever

DEPTH = 100
"""Ranks that are compared, as deep as the reward looks."""
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One query on which two engines disagree."""

    query: str
    gold: list[str]
    ranks: tuple[int | None, int | None]


def differences(
    first: Retriever, second: Retriever, call: Call, *, depth: int = DEPTH
) -> list[Difference]:
    """Queries whose best gold passage has another rank, in batches as a trainer sends them."""
    found = []
    for start in range(0, len(call.queries), _BATCH):
        queries = call.queries[start : start + _BATCH]
        golds = call.golds[start : start + _BATCH]
        pairs = zip(
            first.ranks(queries, golds, depth), second.ranks(queries, golds, depth), strict=True
        )
        for query, gold, ranks in zip(queries, golds, pairs, strict=True):
            if ranks[0] != ranks[1]:
                found.append(Difference(query=query, gold=gold, ranks=ranks))
    return found


def list_differences(
    first: Retriever, second: Retriever, queries: Sequence[str], *, depth: int = DEPTH
) -> list[str]:
    """Queries whose lists of ids differ, order included."""
    return [
        query
        for query in queries
        if [[hit.doc_id for hit in hits] for hits in first.search([query], depth)]
        != [[hit.doc_id for hit in hits] for hits in second.search([query], depth)]
    ]


def concatenations(texts: Sequence[str], num_words: int) -> list[str]:
    """Neighbouring texts joined until each has about this many words."""
    joined, words = [], []
    for text in texts:
        words += text.split()
        if len(words) >= num_words:
            joined.append(" ".join(words[:num_words]))
            words = []
    return joined
