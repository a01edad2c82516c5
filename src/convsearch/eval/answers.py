"""Whether an answer is right: exact match and F1 over words, as SQuAD defined them.

Normalised are both sides: lower case, ASCII punctuation out, the articles a, an, the out, white
space collapsed (Rajpurkar et al. 2016).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """The form in which answers are compared."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """1 where the answer equals an accepted one after normalising, else 0; None is no answer.

    An answer of which nothing is left, such as "the", matches nothing.
    """
    if answer is None:
        return 0.0
    given = normalise_answer(answer)
    return float(bool(given) and any(given == normalise_answer(gold) for gold in golds))


def answer_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Best F1 over words against the accepted answers; 0 for None or nothing in common.

    Where either side is yes, no or noanswer, only an exact match counts (as in HotpotQA's script).
    """
    if answer is None:
        return 0.0
    return max((_f1(normalise_answer(answer), normalise_answer(gold)) for gold in golds), default=0)


def _f1(given: str, gold: str) -> float:
    closed = {"yes", "no", "noanswer"}
    if given != gold and (given in closed or gold in closed):
        return 0.0
    words, wanted = Counter(given.split()), Counter(gold.split())
    shared = (words & wanted).total()
    if not shared:
        return 0.0
    precision, recall = shared / words.total(), shared / wanted.total()
    return 2 * precision * recall / (precision + recall)
