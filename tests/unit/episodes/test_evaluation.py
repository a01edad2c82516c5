"""Scores of runs: every question counts, and equal budgets stand beside unequal ones."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scored_episodes import FEW, GOLDS, MANY, QUESTIONS

from convsearch.cli.agent_view import show_scores
from convsearch.episodes.evaluation import equal_budget, score_run, write_scores
from convsearch.errors import ConfigError, DataError


def test_means_go_over_all_questions():
    run = score_run("many", MANY, QUESTIONS, GOLDS)
    assert run.means["em"] == 1 / 4
    assert run.means["f1"] == pytest.approx((1 + 2 / 3) / 4)
    assert run.means["all_gold_5"] == pytest.approx(1 / 3)
    assert run.means["all_gold_10"] == run.means["all_gold_read"] == pytest.approx(2 / 3)
    assert run.means["documents"] == 2.0
    assert (run.counts["failed"], run.counts["with_gold"], run.counts["faults"]) == (1, 3, 2)
    assert run.counts["squeezer_failures"] == 4
    assert run.em_interval is not None
    assert run.em_interval[0] <= 0.25 <= run.em_interval[1]
    assert run.scores[0].gold_rank == 6


def test_within_one_budget_only_what_was_read_within_it_counts():
    runs = [score_run("many", MANY, QUESTIONS, GOLDS), score_run("few", FEW, QUESTIONS, GOLDS)]
    shared = equal_budget(runs)
    assert shared["documents"] == 2
    assert shared["tokens"] == 12
    same = {"em_tokens": 0.25, "within_tokens": 1.0}
    assert shared["runs"]["many"] == {
        "em": 0.0, "all_gold": pytest.approx(1 / 3), "within": 0.75, **same,
    }  # fmt: skip
    assert shared["runs"]["few"] == {
        "em": 0.5, "all_gold": pytest.approx(2 / 3), "within": 1.0, **same, "em_tokens": 0.5,
    }  # fmt: skip
    assert equal_budget(runs, 6)["runs"]["many"]["em"] == 0.25
    with pytest.raises(ConfigError, match="documents must be 0 or more"):
        equal_budget(runs, -1)
    with pytest.raises(ConfigError, match="tokens must be 0 or more"):
        equal_budget(runs, max_tokens=-1)
    with pytest.raises(ConfigError, match="nothing to compare"):
        equal_budget([])


def test_within_one_number_of_tokens_a_long_episode_does_not_count():
    long = [replace(FEW[0], num_model_tokens=90), *FEW[1:]]
    runs = [score_run("long", long, QUESTIONS, GOLDS), score_run("few", FEW, QUESTIONS, GOLDS)]
    shared = equal_budget(runs)
    assert (shared["documents"], shared["tokens"]) == (2, 12)
    assert shared["runs"]["long"]["em"] == shared["runs"]["few"]["em"] == 0.5
    assert shared["runs"]["long"]["em_tokens"] == 0.25
    assert shared["runs"]["long"]["within_tokens"] == 0.75
    assert equal_budget(runs, max_tokens=97)["runs"]["long"]["em_tokens"] == 0.5
    shown = show_scores(runs, shared)
    assert "within 12 tokens:\n  long: EM 0.250, questions 0.750\n  few: EM 0.500" in shown


def test_a_run_that_reads_nothing_does_not_set_the_budget():
    alone = [replace(e, doc_ids=(), queries=()) for e in FEW]
    runs = [score_run("direct", alone, QUESTIONS, GOLDS), score_run("few", FEW, QUESTIONS, GOLDS)]
    shared = equal_budget(runs)
    assert shared["documents"] == 2
    assert shared["runs"]["direct"]["em"] == shared["runs"]["few"]["em"] == 0.5
    assert shared["runs"]["direct"]["all_gold"] == 0.0
    assert equal_budget(runs[:1])["documents"] == 0


def test_a_run_over_other_questions_is_refused():
    with pytest.raises(DataError, match=r"'q3' has no episode \(1 missing, 0 unknown\)"):
        score_run("short", MANY[:3], QUESTIONS, GOLDS)
    with pytest.raises(DataError, match="not among the questions"):
        score_run("long", MANY, QUESTIONS[:3], GOLDS)


def test_the_passport_gives_labels_and_latency(tmp_path: Path):
    passport = {
        "seconds": 8.0,
        "settings": {"squeezer": "extractive", "engine": {"engine": "openai", "model": "m"}},
    }
    run = score_run("many", MANY, QUESTIONS, GOLDS, passport=passport)
    assert run.seconds_per_question == 2.0
    assert (run.labels["squeezer"], run.labels["engine"]) == ("extractive", "m")
    write_scores(tmp_path, [run], equal_budget([run]), settings={}, inputs=[], seed=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["runs"][0]["means"]["em"] == 0.25
    assert metrics["equal_budget"]["documents"] == 6
    assert len((tmp_path / "per_question.jsonl").read_text().splitlines()) == 4


def test_questions_without_answers_or_gold_are_left_out_of_those_means():
    from dataclasses import replace

    bare = [replace(q, answers=()) for q in QUESTIONS]
    run = score_run("many", MANY, bare, {})
    assert not {"em", "all_gold_5"} & set(run.means)
    assert run.em_interval is None
    assert run.means["searches"] == 1.0
