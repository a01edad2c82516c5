"""From text to index terms, in the order of Lucene's EnglishAnalyzer.

Split at Unicode word boundaries (UAX #29), drop a possessive 's, lower-case, drop 33 stop words,
stem by Porter. Queries and passages go through the same function; its name and version are in the
manifest of every index, so an index is never read with another one.
"""

import re
import threading
from typing import Protocol, cast

import regex
import Stemmer

ANALYZER = "lucene-english/1"

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""`EnglishAnalyzer.ENGLISH_STOP_WORDS_SET` of Lucene."""

_SHORT = 2
"""Characters up to which a word is not stemmed."""
_CACHE_SIZE = 500_000
"""Words whose term is remembered: more than the vocabulary of a corpus of some ten thousand
passages, and tens of megabytes at most in a server that runs for months."""

_MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
_LETTER = rf"[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_MARKS}"
_DIGIT = rf"\p{{WB=Numeric}}{_MARKS}"
_KANA = rf"\p{{WB=Katakana}}{_MARKS}"
_JOINER = rf"\p{{WB=ExtendNumLet}}{_MARKS}"
_IN_WORD = rf"(?<={_LETTER})[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{_MARKS}(?={_LETTER})"
_IN_NUMBER = rf"(?<={_DIGIT})[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{_MARKS}(?={_DIGIT})"
_WORD = rf"(?:{_LETTER}|{_DIGIT}|{_KANA})"
_UNICODE_WORDS = regex.compile(
    rf"(?:{_WORD}|{_JOINER})(?:{_WORD}|{_JOINER}|{_IN_WORD}|{_IN_NUMBER})*"
    rf"|[\p{{Script=Han}}\p{{Script=Hiragana}}]{_MARKS}"
    r"|\p{LB=SA}+",
    regex.V1,
)
_ASCII_WORDS = re.compile(
    r"[A-Za-z0-9_]+(?:(?:(?<=[A-Za-z])[:.'](?=[A-Za-z])|(?<=[0-9])[,;.'](?=[0-9]))[A-Za-z0-9_]+)*"
)
"""The same words where the text is ASCII, several times faster."""
_JOINERS_ONLY = regex.compile(rf"(?:{_JOINER})+", regex.V1)

_POSSESSIVE = ("'s", "’s", "＇s", "'S", "’S", "＇S")  # noqa: RUF001 - Lucene strips all three


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str: ...


def split_words(text: str) -> list[str]:
    """The words of a text, as written. Linear in its length."""
    words: list[str] = []
    for chunk in text.split(" "):  # no word holds a blank, and most chunks are ASCII
        words += (_ASCII_WORDS if chunk.isascii() else _UNICODE_WORDS).findall(chunk)
    return [word for word in words if word[0].isalnum() or not _JOINERS_ONLY.fullmatch(word)]


class Analyzer:
    """Turns text into terms. Safe for threads."""

    def __init__(self) -> None:
        self._stemmer = cast(_Stemmer, Stemmer.Stemmer("porter", 0))
        self._terms: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def __call__(self, text: str) -> list[str]:
        """The terms of a text in order, repeats included; empty where no word is left."""
        with self._lock:  # PyStemmer's objects are not safe for threads
            if len(self._terms) > _CACHE_SIZE:
                self._terms.clear()
            terms = [self._term(word) for word in split_words(text)]
        return [term for term in terms if term is not None]

    def _term(self, word: str) -> str | None:
        if word not in self._terms:
            bare = word[:-2] if word.endswith(_POSSESSIVE) else word
            lowered = bare.lower()
            if not lowered or lowered in STOP_WORDS:
                self._terms[word] = None
            else:  # Lucene's Porter leaves short words alone; PyStemmer makes nothing of "s"
                short = len(lowered) <= _SHORT
                self._terms[word] = lowered if short else self._stemmer.stemWord(lowered)
        return self._terms[word]
