"""From text to index terms, exactly as Anserini's default English analyzer (Lucene's parts) does.

Split at Unicode word boundaries, drop a possessive 's, lower-case, drop 33 stop words, stem by
Porter. Queries and passages go through the same function; its name and version are in the
manifest of every index, so an index is never read with another one.
"""

import threading

from retriever_server.porter import stem
from retriever_server.words import split_words

ANALYZER = "lucene-english/2"

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""`EnglishAnalyzer.ENGLISH_STOP_WORDS_SET` of Lucene."""

_CACHE_SIZE = 500_000
"""Words whose term is remembered: more than the vocabulary of a corpus of some ten thousand
passages, and tens of megabytes at most in a server that runs for months."""
_POSSESSIVE = ("'s", "’s", "＇s", "'S", "’S", "＇S")  # noqa: RUF001 - Lucene strips all three
_DOTTED_CAPITAL_I = "\u0130"


class Analyzer:
    """Turns text into terms. Safe for threads."""

    def __init__(self) -> None:
        self._terms: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def __call__(self, text: str) -> list[str]:
        """The terms of a text in order, repeats included; empty where no word is left."""
        words = split_words(text)
        with self._lock:
            if len(self._terms) > _CACHE_SIZE:
                self._terms.clear()
            terms = [self._term(word) for word in words]
        return [term for term in terms if term is not None]

    def _term(self, word: str) -> str | None:
        if word not in self._terms:
            bare = word[:-2] if word.endswith(_POSSESSIVE) else word
            lowered = lower(bare)
            self._terms[word] = None if not lowered or lowered in STOP_WORDS else stem(lowered)
        return self._terms[word]


def lower(word: str) -> str:
    """Each character by itself, as in Java: no final sigma, one letter for the dotted capital I."""
    if word.isascii():
        return word.lower()
    return "".join("i" if c == _DOTTED_CAPITAL_I else c.lower() for c in word)
