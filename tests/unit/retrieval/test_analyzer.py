"""Text to terms, against the rules of Lucene's English analyzer."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_server import analyzer
from retriever_server.analyzer import STOP_WORDS, Analyzer, split_words

ANALYZE = Analyzer()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("state-of-the-art", ["state", "of", "the", "art"]),
        ("U.S.A. 3.14 1,000 e.g.", ["U.S.A", "3.14", "1,000", "e.g"]),
        ("can't won\u2019t 'quoted'", ["can't", "won\u2019t", "quoted"]),
        ("snake_case _ __ _x", ["snake_case", "_x"]),
        ("東京 caf\u00e9 e\u0301te\u0301", ["東", "京", "café", "e\u0301te\u0301"]),
        ("a.1 1.a x:y", ["a", "1", "1", "a", "x:y"]),
        ("!!! ... \n\t", []),
        ("", []),
    ],
)
def test_words_end_where_unicode_says(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_terms_are_lower_case_stemmed_and_without_stop_words() -> None:
    text = "The Running of the BULLS, and the dog's ponies will be relational"
    assert Analyzer()(text) == ["run", "bull", "dog", "poni", "relat"]
    assert Analyzer()("S is as us, s's") == ["s", "us", "s"]


def test_the_stop_words_are_lucenes_thirty_three() -> None:
    assert len(STOP_WORDS) == 33
    assert Analyzer()(" ".join(sorted(STOP_WORDS))) == []
    assert Analyzer()("what from who") == ["what", "from", "who"]


@settings(deadline=None)
@given(st.text(alphabet="aZ09_.':,;-\t !s", max_size=40))
def test_the_ascii_pattern_is_the_unicode_pattern(text: str) -> None:
    words = analyzer._UNICODE_WORDS.findall(text)
    assert split_words(text) == [w for w in words if w.strip("_")]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_non_empty_terms(text: str) -> None:
    assert all(ANALYZE(text))


@pytest.mark.parametrize("unit", ["a", "_", "a'", "1,", "\u0301", "é'", "é_", "é _", " ", "東"])
def test_a_hundred_thousand_characters_take_no_time(unit: str) -> None:
    start = time.process_time()
    split_words((unit * 100_000)[:100_000])
    assert time.process_time() - start < 5
