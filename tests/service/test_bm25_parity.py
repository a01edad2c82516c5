"""The BM25 engine without Java gives Lucene's ranks, and its analyzer Lucene's terms.

In miniature; `tests/scale/test_bm25_parity.py` has the whole of it.
"""

import random
import sys
import unicodedata
from pathlib import Path

import pytest
from lucene_case import LuceneAnalyzer, needs_lucene
from parity import differences, list_differences
from synthetic_corpus import SyntheticCorpus

from convsearch.passages import write_passages
from retriever_server import words
from retriever_server.analyzer import Analyzer, lower
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.lucene import LuceneBackend
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.lucene import build_lucene_index
from retriever_server.porter import stem

pytestmark = needs_lucene
CHARACTERS = (
    "aS\u05d05\u30ab_:.,'\"\u2019\u0301\u200d\ufe0f\ufe0e\u20e3\U0001f3fb\U0001f600\u2139"
    "\U0001f1e6\u6771\u0e01\u0e31# \U0001d41a"
)
"""Some of each class of characters that the tokenizer knows."""
ENDINGS = [
    *("ational", "tional", "enci", "anci", "izer", "bli", "alli", "entli", "eli", "ousli", "ation"),
    *("ization", "ator", "alism", "iveness", "fulness", "ousness", "aliti", "iviti", "biliti", "y"),
    *("logi", "icate", "ative", "alize", "iciti", "ical", "ful", "ness", "al", "ance", "ence"),
    *("er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "sion", "tion", "ou"),
    *("ism", "ate", "iti", "ous", "ive", "ize", "ies", "sses", "s", "eed", "ed", "ing", "ly", "e"),
    *("ll", "bly", "logy"),
]


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (0.82, 0.68)])
def test_ranks_and_lists_are_lucenes(tmp_path: Path, k1: float, b: float) -> None:
    corpus = SyntheticCorpus(3_000, vocabulary=20_000)
    write_passages(tmp_path / "corpus.jsonl", corpus.passages())
    build_lucene_index(tmp_path / "corpus.jsonl", tmp_path / "lucene", k1=k1, b=b)
    build_bm25_index(tmp_path / "corpus.jsonl", tmp_path / "bm25", k1=k1, b=b)
    first = LuceneBackend.load(tmp_path / "lucene")
    second = Bm25Backend.load(tmp_path / "bm25")
    call = corpus.call(300)
    ranks = first.ranks(call.queries, call.golds, 100)
    assert sum(rank is not None for rank in ranks) > 150
    assert len(set(ranks)) > 20
    assert differences(first, second, call) == []
    assert list_differences(first, second, call.queries[:50]) == []


@pytest.fixture(scope="module")
def cut() -> LuceneAnalyzer:
    return LuceneAnalyzer(words_only=True)


def test_words_of_random_characters_are_lucenes(cut: LuceneAnalyzer) -> None:
    rng = random.Random(5)
    texts = ["".join(rng.choices(CHARACTERS, k=rng.randint(1, 12))) for _ in range(20_000)]
    for text, expected in zip(texts, cut(texts), strict=True):
        assert [lower(w) for w in words.split_words(text)] == expected, ascii(text)


def test_long_words_are_cut_where_lucene_cuts(cut: LuceneAnalyzer) -> None:
    rng = random.Random(6)
    lengths = (1, 1, 2, 5, 100, 254, 255, 256, 300, 600)
    texts = [
        "".join(rng.choice(CHARACTERS) * rng.choice(lengths) for _ in range(rng.randint(1, 6)))
        for _ in range(200)
    ]
    for text, expected in zip(texts, cut(texts), strict=True):
        assert [lower(w) for w in words.split_words(text)] == expected, ascii(text[:9])


def test_every_character_is_to_us_what_it_is_to_lucene(cut: LuceneAnalyzer) -> None:
    """Alone and amid letters, digits and others; private use and surrogates left out. A character
    that this Python does not know may have a lower case that it does not know."""
    texts = []
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category not in ("Cs", "Co", "Cn") and not 0x20000 < code < 0xE0000:
            texts.append(f"a{chr(code)}b 1{chr(code)}1 {chr(code)}")
    for text, expected in zip(texts, cut(texts), strict=True):
        assert [lower(w) for w in words.split_words(text)] == expected, ascii(text)


def test_stems_of_made_up_words_are_lucenes() -> None:
    rng = random.Random(7)
    made = [
        "".join(rng.choices("aeiouybcdlmnstzwx\u00e9\U0001d41a", k=rng.randint(1, 6)))
        + "".join(rng.choices(ENDINGS, k=rng.randint(0, 3)))
        for _ in range(20_000)
    ]
    lucene = LuceneAnalyzer()(made)
    ours = Analyzer()
    for word, expected in zip(made, lucene, strict=True):
        assert ours(word) == expected, word
    assert stem("possibly") == "possibl"
    assert stem("technology") == "technolog"
