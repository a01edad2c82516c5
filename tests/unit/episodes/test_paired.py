"""Two runs question by question: what differs, and by how much more than chance."""

from dataclasses import replace

import pytest
from agent_case import some_questions
from scored_episodes import FEW, GOLDS, MANY, QUESTIONS, episode

from convsearch.episodes.evaluation import score_run
from convsearch.episodes.paired import MEASURES, paired_rows
from convsearch.errors import DataError

FIRST, SECOND = (
    score_run(name, made, QUESTIONS, GOLDS) for name, made in (("many", MANY), ("few", FEW))
)


def test_a_run_does_not_differ_from_itself() -> None:
    for row in paired_rows(FIRST, FIRST):
        assert (row.difference, row.interval, row.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_the_differences_are_those_of_the_means_and_change_sign() -> None:
    there, back = paired_rows(FIRST, SECOND), paired_rows(SECOND, FIRST)
    for row, turned in zip(there, back, strict=True):
        assert row.difference == pytest.approx(row.first - row.second)
        assert row.difference == pytest.approx(-turned.difference)
        assert row.interval[0] <= row.difference <= row.interval[1]
        assert row.p_value == turned.p_value
    documents = next(row for row in there if row.measure == "documents")
    assert (documents.first, documents.second) == (2.0, 2.0)


def test_a_certain_difference_is_told_from_chance() -> None:
    questions = some_questions(30)
    golds = {q.qid: ["d1"] for q in questions}
    right, wrong = (
        score_run(name, [episode(i, answer, "d1") for i in range(30)], questions, golds)
        for name, answer in (("right", questions[0].answers[0]), ("wrong", "nobody"))
    )
    rows = {row.measure: row for row in paired_rows(right, wrong)}
    assert set(rows) == set(MEASURES)
    assert rows["em"].difference == 1.0
    assert rows["em"].p_value < 0.001
    assert rows["all_gold"].p_value == 1.0


def test_within_a_budget_an_episode_that_read_more_earns_nothing() -> None:
    rows = {row.measure: row for row in paired_rows(FIRST, SECOND, max_documents=2)}
    everything = {row.measure: row for row in paired_rows(FIRST, SECOND)}
    assert rows["em"].second == everything["em"].second
    assert rows["em"].first < everything["em"].first


def test_runs_over_other_questions_are_refused() -> None:
    fewer = replace(SECOND, scores=SECOND.scores[:2])
    with pytest.raises(DataError, match="same questions"):
        paired_rows(FIRST, fewer)
