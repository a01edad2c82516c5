"""Means by turn and by topic switch: nobody is lost, and they add up to the whole."""

import pytest

from convsearch.eval import METRICS, bootstrap_interval
from convsearch.pipeline.breakdown import by_topic_switch, by_turn
from convsearch.pipeline.evaluation import Evaluation, score_run
from convsearch.pipeline.evaluation_files import metrics_record
from convsearch.pipeline.searched import Searched
from convsearch.types import Hit


def evaluation(*, paper_compat: bool = False, **changes: None) -> Evaluation:
    """Three conversations of nine turns; the gold passage is at rank `turn`, the eighth turn of
    each finds nothing; the topic changes at the third turn and is not known from the sixth on."""
    searched, run, qrels = [], {}, {}
    for conv in ("a", "b", "c"):
        for turn in range(1, 10):
            qid = f"{conv}{turn}"
            switch = None if turn == 1 or turn > 5 else turn == 3
            values = {"conv_id": conv, "turn": turn, "topic_switch": switch, **changes}
            searched.append(Searched(qid=qid, query="x", **values))  # pyright: ignore[reportArgumentType]
            qrels[qid] = {f"d{turn}": 1}
            run[qid] = [Hit(doc_id=f"d{i}", score=1.0) for i in range(1, 10)] if turn != 8 else []
    return score_run(searched, run, qrels, 100, paper_compat=paper_compat)


def test_turns_are_grouped_and_add_up_to_the_whole():
    found = evaluation()
    groups = by_turn(found)
    assert groups is not None
    assert {name: group["num_queries"] for name, group in groups.items()} == {
        "1": 3, "2": 3, "3": 3, "4-6": 9, "7+": 9,
    }  # fmt: skip
    means = {name: group["metrics"] for name, group in groups.items()}
    assert means["2"] is not None
    assert means["2"]["mrr"] == pytest.approx(1 / 2)
    assert means["4-6"] is not None
    assert means["4-6"]["mrr"] == pytest.approx((1 / 4 + 1 / 5 + 1 / 6) / 3)
    for name in METRICS:
        total = sum(g["num_averaged"] * (g["metrics"] or {})[name] for g in groups.values())
        assert total / found.num_averaged == pytest.approx(found.metrics[name])


def test_topics_are_grouped_and_nobody_is_lost():
    groups = by_topic_switch(evaluation())
    assert groups is not None
    assert {name: group["num_queries"] for name, group in groups.items()} == {
        "first": 3, "same": 9, "switch": 3, "unknown": 12,
    }  # fmt: skip
    assert groups["switch"]["metrics"] is not None
    assert groups["switch"]["metrics"]["mrr"] == pytest.approx(1 / 3)


def test_paper_compat_averages_a_part_over_what_was_found():
    groups = by_turn(evaluation(paper_compat=True))
    assert groups is not None
    assert groups["7+"]["num_averaged"] == 6
    assert groups["7+"]["num_queries"] == 9
    assert groups["7+"]["metrics"] is not None
    assert groups["7+"]["metrics"]["mrr"] == pytest.approx((1 / 7 + 1 / 9) / 2)


def test_what_is_not_known_has_no_table():
    assert by_turn(evaluation(turn=None)) is None
    assert by_topic_switch(evaluation(topic_switch=None)) is None
    assert evaluation(conv_id=None).intervals is None


def test_every_mean_has_its_interval_and_mrr_keeps_its_own():
    found = evaluation()
    record = metrics_record(found)
    assert found.intervals is not None
    assert set(found.intervals) == set(METRICS)
    for name in METRICS:
        values = {
            conv: [found.per_query[f"{conv}{turn}"][name] for turn in range(1, 10)]
            for conv in ("a", "b", "c")
        }
        assert found.intervals[name] == pytest.approx(bootstrap_interval(values, seed=0))
    assert record["mrr_interval_95"] == found.intervals["mrr"]
    assert record["labels"]["mrr"] == "mrr@100"
    assert record["labels"]["ndcg_cut_3"] == "ndcg@3"


def test_a_part_of_one_conversation_has_no_interval():
    found = evaluation()
    alone = [s for s in found.searched if s.conv_id == "a" or s.turn != 2]
    qrels = {s.qid: {f"d{s.turn}": 1} for s in alone}
    groups = by_turn(score_run(alone, found.run, qrels, 100))
    assert groups is not None
    assert groups["2"]["mrr_interval_95"] is None
    single = [s for s in found.searched if s.conv_id == "a"]
    assert score_run(single, found.run, qrels, 100).intervals is None
    assert groups["3"]["mrr_interval_95"] is not None
