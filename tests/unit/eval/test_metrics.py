"""Metrics against a computation that shares nothing with trec_eval."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsearch.errors import DataError
from convsearch.eval import METRICS, best_gold_rank, mean_metrics, per_query_metrics
from convsearch.types import Hit

DOC_IDS = [f"d{i:03d}" for i in range(130)]


def by_hand(judged: dict[str, int], ranked: list[str]) -> dict[str, float]:
    relevant = {doc for doc, relevance in judged.items() if relevance > 0}
    first = next((i for i, doc in enumerate(ranked, 1) if doc in relevant), None)
    gains = [max(judged.get(doc, 0), 0) for doc in ranked[:3]]
    best = sorted((max(relevance, 0) for relevance in judged.values()), reverse=True)[:3]
    dcg, ideal = (
        sum(gain / math.log2(i + 1) for i, gain in enumerate(values, 1)) for values in (gains, best)
    )
    metrics = {"mrr": 1 / first if first else 0.0, "ndcg_cut_3": dcg / ideal if ideal else 0.0}
    for k in (5, 10, 20, 100):
        metrics[f"recall_{k}"] = len(relevant & set(ranked[:k])) / len(relevant)
    return metrics


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, dict[str, int]], dict[str, list[Hit]]]:
    """Queries with one or several golds of several grades; some missing in the run, many ties."""
    qrels, run = {}, {}
    for number in range(draw(st.integers(1, 6))):
        golds = draw(st.lists(st.sampled_from(DOC_IDS), min_size=1, max_size=5, unique=True))
        qrels[f"q{number}"] = {doc: draw(st.integers(1, 3)) for doc in golds}
        qrels[f"q{number}"].setdefault("judged-not-relevant", 0)
        if draw(st.booleans()):
            rng = random.Random(draw(st.integers(0, 10_000)))
            ranked = rng.sample(DOC_IDS, draw(st.integers(0, 130)))
            run[f"q{number}"] = [Hit(doc_id=doc, score=rng.choice([1, 2])) for doc in ranked]
    return qrels, run


@settings(deadline=None, max_examples=60)
@given(worlds())
def test_equal_to_an_independent_computation(world):
    qrels, run = world
    measured = per_query_metrics(qrels, run)
    assert list(measured) == list(qrels)
    for qid, judged in qrels.items():
        expected = by_hand(judged, [hit.doc_id for hit in run.get(qid, [])])
        assert measured[qid] == pytest.approx(expected, abs=1e-9)
        assert tuple(measured[qid]) == METRICS
        rank = best_gold_rank(qrels, qid, run.get(qid, []))
        assert measured[qid]["mrr"] == pytest.approx(1 / rank if rank else 0.0, abs=1e-9)
    means = mean_metrics(measured)
    for name in METRICS:
        values = [by_hand(j, [h.doc_id for h in run.get(q, [])])[name] for q, j in qrels.items()]
        assert means[name] == pytest.approx(math.fsum(values) / len(values), abs=1e-9)


def test_position_decides_where_trec_eval_would_break_the_tie_the_other_way():
    hits = [Hit(doc_id="a", score=1.0), Hit(doc_id="b", score=1.0), Hit(doc_id="c", score=1.0)]
    assert per_query_metrics({"q": {"a": 1}}, {"q": hits})["q"]["mrr"] == 1.0


def test_graded_gains_of_several_golds():
    hits = [Hit(doc_id=doc, score=0.0) for doc in ("x", "good", "best")]
    ndcg = per_query_metrics({"q": {"good": 1, "best": 2, "other": 1}}, {"q": hits})["q"]
    dcg = 1 / math.log2(3) + 2 / math.log2(4)
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg["ndcg_cut_3"] == pytest.approx(dcg / ideal, abs=1e-9)


def test_a_query_that_is_missing_counts_as_zero():
    found = per_query_metrics({"q1": {"a": 1}, "q2": {"a": 1}}, {"q1": [Hit(doc_id="a", score=1)]})
    assert mean_metrics(found) == dict.fromkeys(METRICS, 0.5)


def test_unknown_and_repeated_ids_are_refused():
    hit = Hit(doc_id="a", score=1.0)
    with pytest.raises(DataError, match="'q9', which has no line in the qrels"):
        per_query_metrics({"q1": {"a": 1}}, {"q9": [hit]})
    with pytest.raises(DataError, match="'q1' twice"):
        per_query_metrics({"q1": {"a": 1}}, {"q1": [hit, hit]})
    with pytest.raises(DataError, match="no query to average"):
        mean_metrics({})
