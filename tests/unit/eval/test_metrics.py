"""Metrics against a computation that shares nothing with trec_eval."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytrec_eval import RelevanceEvaluator

from convsearch.errors import ConfigError, DataError
from convsearch.eval import (
    METRICS,
    best_gold_rank,
    mean_metrics,
    per_query_metrics,
    trec_eval_order,
)
from convsearch.types import Hit

DOC_IDS = [f"d{i:03d}" for i in range(130)]


def by_hand(judged: dict[str, int], ranked: list[str], level: int = 1) -> dict[str, float]:
    relevant = {doc for doc, relevance in judged.items() if relevance >= level}
    first = next((i for i, doc in enumerate(ranked, 1) if doc in relevant), None)
    gains = [max(judged.get(doc, 0), 0) for doc in ranked[:3]]
    best = sorted((max(relevance, 0) for relevance in judged.values()), reverse=True)[:3]
    dcg, ideal = (
        sum(gain / math.log2(i + 1) for i, gain in enumerate(values, 1)) for values in (gains, best)
    )
    metrics = {"mrr": 1 / first if first else 0.0, "ndcg_cut_3": dcg / ideal if ideal else 0.0}
    for k in (5, 10, 20, 100):
        found = len(relevant & set(ranked[:k]))
        metrics[f"recall_{k}"] = found / len(relevant) if relevant else 0.0
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
@given(worlds(), st.integers(1, 4))
def test_equal_to_an_independent_computation(world, level):
    qrels, run = world
    measured = per_query_metrics(qrels, run, relevance_level=level)
    assert list(measured) == list(qrels)
    for qid, judged in qrels.items():
        expected = by_hand(judged, [hit.doc_id for hit in run.get(qid, [])], level)
        assert measured[qid] == pytest.approx(expected, abs=1e-9)
        assert tuple(measured[qid]) == METRICS
        rank = best_gold_rank(qrels, qid, run.get(qid, []), relevance_level=level)
        assert measured[qid]["mrr"] == pytest.approx(1 / rank if rank else 0.0, abs=1e-9)
    means = mean_metrics(measured)
    for name in METRICS:
        values = [
            by_hand(judged, [h.doc_id for h in run.get(qid, [])], level)[name]
            for qid, judged in qrels.items()
        ]
        assert means[name] == pytest.approx(math.fsum(values) / len(values), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(worlds(), st.integers(1, 4))
def test_a_level_is_that_of_trec_eval_and_of_judgements_made_binary(world, level):
    """The second is what the original's script does by --rel_threshold."""
    qrels, run = world
    measured = per_query_metrics(qrels, run, relevance_level=level)
    scored = {
        qid: {hit.doc_id: float(-i) for i, hit in enumerate(hits)}
        for qid, hits in run.items()
        if hits
    }
    names = {"recip_rank", "ndcg_cut_3", "recall_10"}
    theirs = RelevanceEvaluator(qrels, names, relevance_level=level).evaluate(scored)
    binary = {q: {d: int(grade >= level) for d, grade in j.items()} for q, j in qrels.items()}
    made_binary = RelevanceEvaluator(binary, names).evaluate(scored)
    graded = RelevanceEvaluator(qrels, names).evaluate(scored)
    for qid in scored:
        ours = measured[qid]
        assert ours["mrr"] == theirs[qid]["recip_rank"] == made_binary[qid]["recip_rank"]
        assert ours["recall_10"] == theirs[qid]["recall_10"] == made_binary[qid]["recall_10"]
        assert ours["ndcg_cut_3"] == theirs[qid]["ndcg_cut_3"] == graded[qid]["ndcg_cut_3"]


def test_a_query_without_a_passage_of_the_level_counts_as_zero():
    hits = [Hit(doc_id="good", score=1.0)]
    found = per_query_metrics({"q": {"good": 1}}, {"q": hits}, relevance_level=2)["q"]
    assert found == {"ndcg_cut_3": 1.0, **{n: 0.0 for n in METRICS if n != "ndcg_cut_3"}}
    with pytest.raises(ConfigError, match="lowest relevant grade must be from 1 to 100,000, got 0"):
        per_query_metrics({"q": {"good": 1}}, {"q": hits}, relevance_level=0)


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


@pytest.mark.parametrize("grade", [10**20, 2**31 - 1, -(2**31), 100_001])
def test_grades_that_trec_eval_cannot_hold_are_refused(grade: int):
    with pytest.raises(DataError, match="a grade of qid 'q' is beyond 100,000"):
        per_query_metrics({"q": {"a": grade, "b": 1}}, {"q": [Hit(doc_id="b", score=1.0)]})
    with pytest.raises(ConfigError, match="lowest relevant grade must be from 1 to 100,000"):
        per_query_metrics({"q": {"b": 1}}, {}, relevance_level=abs(grade))


def test_a_query_with_hits_that_was_not_measured_is_an_error():
    # trec_eval's code leaves out a query without judgements, and one it found no memory for
    with pytest.raises(DataError, match="qid 'p' has hits and was not measured"):
        per_query_metrics({"q": {"a": 1}, "p": {}}, {"p": [Hit(doc_id="a", score=1.0)]})


def test_a_negative_grade_is_not_relevant_and_costs_nothing():
    qrels = {"q": {"junk": -2, "good": 1}}
    hits = [Hit(doc_id="junk", score=2.0), Hit(doc_id="good", score=1.0)]
    measured = per_query_metrics(qrels, {"q": hits})["q"]
    assert measured == per_query_metrics({"q": {"junk": 0, "good": 1}}, {"q": hits})["q"]
    assert measured["mrr"] == 0.5
    assert best_gold_rank(qrels, "q", hits) == 2


@pytest.mark.filterwarnings("error")
def test_scores_beyond_single_precision_are_ordered_as_trec_eval_does():
    hits = [Hit(doc_id=d, score=s) for d, s in (("a", 1e300), ("b", math.inf), ("c", -1e300))]
    assert [hit.doc_id for hit in trec_eval_order(hits)] == ["b", "a", "c"]
