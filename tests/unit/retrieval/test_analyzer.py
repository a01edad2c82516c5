"""Text to terms, against the rules of Lucene's English analyzer."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_server.analyzer import STOP_WORDS, Analyzer, lower
from retriever_server.porter import stem
from retriever_server.words import MAX_UNITS, _automaton_words, split_words

ANALYZE = Analyzer()
ANY = st.characters(exclude_categories=["Cs"])
"""As the default of `st.text`, which takes seconds to find out what UTF-8 encodes."""


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
        (
            "C\u00a9 \u00ae\u2122 #1 1\ufe0f\u20e3 #\u20e3",
            ["C", "\u00a9", "\u00ae", "\u2122", "1", "1\ufe0f\u20e3", "#\u20e3"],
        ),
        ("B\u266d\U0001f600\U0001f600", ["B", "\u266d", "\U0001f600", "\U0001f600"]),
        (
            "\U0001f468\u200d\U0001f469 \U0001f1e6\U0001f1e9\U0001f1e6",
            ["\U0001f468\u200d\U0001f469", "\U0001f1e6\U0001f1e9"],
        ),
        ("dj\u30de\u30c3\u30af_x", ["dj", "\u30de\u30c3\u30af_x"]),
        ("\u05d0\"\u05d1 \u05d0'", ['\u05d0"\u05d1', "\u05d0'"]),
        ("\u0e01\u0e31\u0e02a", ["\u0e01\u0e31\u0e02", "a"]),
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
def test_the_ascii_pattern_is_the_automaton(text: str) -> None:
    assert split_words(text) == [w for part in text.split(" ") for w in _automaton_words(part)]


@settings(deadline=None)
@given(st.text(ANY, max_size=60))
def test_any_text_gives_non_empty_terms(text: str) -> None:
    assert all(ANALYZE(text))


def test_letters_are_lowered_one_by_one() -> None:
    assert lower("\u0130ZM\u0130R") == "izmir"
    assert lower("\u039f\u03a3") == "\u03bf\u03c3", "no final sigma"


def test_long_words_are_cut_in_utf_16() -> None:
    assert [len(word) for word in split_words("a" * 600)] == [255, 255, 90]
    assert [len(word) for word in split_words("\U0001d41a" * 200)] == [127, 73]
    assert split_words("_" * 300 + "a") == ["_" * (MAX_UNITS - 1) + "a"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"), ("ponies", "poni"), ("agreed", "agre"), ("feed", "feed"),
        ("plastered", "plaster"), ("hopping", "hop"), ("filing", "file"), ("falling", "fall"),
        ("sky", "sky"), ("happy", "happi"), ("relational", "relat"), ("possibly", "possibl"),
        ("technologies", "technolog"), ("hopefulness", "hope"), ("adoption", "adopt"),
        ("controlling", "control"), ("rate", "rate"), ("is", "is"),
        ("dy\U0001d41ae", "dy\U0001d41a"),
    ],
)  # fmt: skip
def test_stems_are_those_of_porters_program(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "_",
            "a'",
            "1,",
            "\u0301",
            "é'",
            "é_",
            "é _",
            " ",
            "東",
            "\u200d",
            "_\u0301",
            "#\u0301",
        ),
        *("\U0001f600\u200d", "é:\u0301"),
    ],
)
def test_a_hundred_thousand_characters_take_no_time(unit: str) -> None:
    start = time.process_time()
    split_words((unit * 100_000)[:100_000])
    assert time.process_time() - start < 5
