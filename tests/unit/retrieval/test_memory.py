"""The small engine against BM25 worked out by hand."""

import math

import pytest

from convsearch.errors import DataError
from convsearch.retrieval import Retriever
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage

PASSAGES = [
    Passage(doc_id="a", title="red", text="fox fox"),
    Passage(doc_id="b", title="", text="red hen"),
    Passage(doc_id="c", title="", text="green"),
]


def test_scores_are_bm25() -> None:
    engine = InMemoryRetriever(PASSAGES, k1=0.9, b=0.4)
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    norm = 0.9 * (0.6 + 0.4 * 3 / 2)  # three words, two on average
    [[hit]] = engine.search(["fox"], 10)
    assert hit.doc_id == "a"
    assert hit.score == pytest.approx(idf * 2 / (norm + 2), rel=1e-6)
    [[twice]] = engine.search(["fox FOX"], 10)
    assert twice.score == pytest.approx(2 * hit.score, rel=1e-6)


def test_ranks_are_by_position_and_none_where_nothing_matches() -> None:
    engine = InMemoryRetriever(PASSAGES)
    assert isinstance(engine, Retriever)
    queries = ["red", "red", "blue", "", "green red"]
    golds = [["b"], ["a"], ["a"], ["a"], ["a", "c"]]
    assert engine.ranks(queries, golds, 100) == [1, 2, None, None, 1]
    assert engine.ranks(["red"], [["a"]], 1) == [None]


def test_bad_calls_and_corpora_are_refused() -> None:
    engine = InMemoryRetriever(PASSAGES)
    with pytest.raises(DataError, match="'x' is not in the index"):
        engine.ranks(["red"], [["x"]], 10)
    with pytest.raises(ValueError, match="2 queries and 1 golds"):
        engine.ranks(["red", "hen"], [["a"]], 10)
    with pytest.raises(ValueError, match=r"golds\[0\] is empty"):
        engine.ranks(["red"], [[]], 10)
    with pytest.raises(ValueError, match="topk must be 1 or more"):
        engine.search(["red"], 0)
    with pytest.raises(DataError, match="occurs twice"):
        InMemoryRetriever([PASSAGES[0], PASSAGES[0]])
    with pytest.raises(DataError, match="empty"):
        InMemoryRetriever([])
