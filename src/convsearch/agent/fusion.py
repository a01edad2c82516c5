"""Several lists of hits become one, and passages become text within a budget of tokens."""

import math
from collections.abc import Callable, Sequence

from convsearch.types import Hit, Passage

RECIPROCAL_RANK_CONSTANT = 60
"""Cormack, Clarke and Buettcher 2009: a passage earns 1 / (60 + rank) from every list."""


def fuse(lists: Sequence[Sequence[Hit]], max_documents: int | None = None) -> list[Hit]:
    """Distinct passages of all lists, best reciprocal-rank sum first; ties by doc_id.

    Neither the order of the lists nor the scores in them change the result. A passage that one
    list holds twice counts at its better rank. max_documents: cut there; None keeps all.
    """
    shares: dict[str, list[float]] = {}
    for hits in lists:
        ranked = dict.fromkeys(hit.doc_id for hit in hits)
        for rank, doc_id in enumerate(ranked, 1):
            shares.setdefault(doc_id, []).append(1 / (RECIPROCAL_RANK_CONSTANT + rank))
    fused = [Hit(doc_id=doc_id, score=math.fsum(parts)) for doc_id, parts in shares.items()]
    return sorted(fused, key=lambda hit: (-hit.score, hit.doc_id))[:max_documents]


def fit_passages(
    passages: Sequence[Passage], max_tokens: int, count_tokens: Callable[[str], int]
) -> tuple[str, int]:
    """The passages as numbered paragraphs, best first, within max_tokens; and how many they are.

    The first passage that does not fit is cut at a word, the rest left out. So is one of which
    nothing but the title would fit.
    """
    kept: list[str] = []
    left = max_tokens
    for number, passage in enumerate(passages, 1):
        title = f"(Title: {' '.join(passage.title.split())}) " if passage.title else ""
        whole = f"Doc {number} {title}{passage.text}"
        paragraph = cut_to_tokens(whole, left, count_tokens)
        if len(paragraph) < len(whole):
            if len(paragraph) > len(whole) - len(passage.text):
                kept.append(paragraph)
            break
        kept.append(paragraph)
        left -= count_tokens(paragraph + "\n")
    return "\n".join(kept), len(kept)


def cut_to_tokens(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> str:
    """The longest beginning of `text`, whole words where there are any, of at most max_tokens."""
    if max_tokens <= 0:
        return ""
    text = text[: max_tokens * _MOST_CHARS_OF_A_TOKEN]
    if count_tokens(text) <= max_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[:middle]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    head = text[:low].rstrip()
    whole_words = head[: -len(head.split()[-1])].rstrip() if head.split() else head
    return whole_words if 0 < len(whole_words) > len(head) - _LONGEST_WORD_CHARS else head


_LONGEST_WORD_CHARS = 64
"""What is longer, such as a line of a script without blanks, is cut inside."""
_MOST_CHARS_OF_A_TOKEN = 32
"""Nothing longer is counted: a passage of a megabyte is cut before it is looked at."""
