"""Topic switches of a conversation, read off the pages of its relevant passages.

They come from the gold passages, so they stand in a file of their own (`turn_info.jsonl`) that only
evaluation opens; no turn carries them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from convsearch.files import Qrels, gold_ids
from convsearch.types import Turn


def topic_switches(
    turns: Sequence[Turn], pages: Mapping[str, frozenset[str]]
) -> dict[str, bool | None]:
    """qid -> whether the turn's pages are all others than those of the turn before it.

    pages: qid -> titles of the pages that are relevant; empty or absent where they are not known.
    The turn before is the one of the same conversation whose history is one exchange shorter. None
    where there is none (the first turn, a gap in the data) or where a page is not known. A change
    of section within a page is no switch, as in TopiOCQA (Adlakha et al. 2022).
    """
    by_length: defaultdict[tuple[str, int], list[Turn]] = defaultdict(list)
    for turn in turns:
        by_length[turn.conv_id, len(turn.history)].append(turn)
    switches: dict[str, bool | None] = {}
    for turn in turns:
        before = by_length.get((turn.conv_id, len(turn.history) - 2))
        previous = max(before, key=lambda each: each.turn) if before else None
        own = pages.get(turn.qid)
        others = pages.get(previous.qid) if previous else None
        switches[turn.qid] = own.isdisjoint(others) if own and others else None
    return switches


def pages_of_golds(qrels: Qrels, titles: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """qid -> titles of its relevant passages; without any where one of them has no title.

    titles: doc_id -> title, of the relevant passages at least. Where titles name sections of a
    page (Doc2Dial), so do these.
    """
    pages = {}
    for qid in qrels:
        found = [titles.get(doc_id, "") for doc_id in gold_ids(qrels, qid)]
        pages[qid] = frozenset(found) if all(found) else frozenset[str]()
    return pages
