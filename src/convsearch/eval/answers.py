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
    return " ".join(_ARTICLES.sub(" ", _with_articles(text)).split())


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """1 where the answer equals an accepted one after normalising, else 0; None is no answer.

    Where nothing is left of an accepted answer ("The The", "A", "+"), it is compared before that:
    with its articles, or where it has no word either, with its punctuation. So "the The!" is right
    for "The The", and "the" for "A" is not. An accepted answer without any sign matches nothing.
    """
    return float(answer is not None and any(_equal(answer, gold) for gold in golds))


def answer_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Best F1 over words against the accepted answers; 0 for None or nothing in common.

    Where either side is yes, no or noanswer, only an exact match counts (as in HotpotQA's script),
    and so does it for an accepted answer of which nothing is left after normalising.
    """
    if answer is None:
        return 0.0
    return max((_f1_of(answer, gold) for gold in golds), default=0.0)


def _f1_of(answer: str, gold: str) -> float:
    wanted = normalise_answer(gold)
    return _f1(normalise_answer(answer), wanted) if wanted else float(_equal(answer, gold))


def _equal(answer: str, gold: str) -> bool:
    """Compared in the first form that leaves something of the accepted answer."""
    for form in (normalise_answer, _with_articles, _as_written):
        if wanted := form(gold):
            return form(answer) == wanted
    return False


def _with_articles(text: str) -> str:
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


def _as_written(text: str) -> str:
    return " ".join(text.lower().split())


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
