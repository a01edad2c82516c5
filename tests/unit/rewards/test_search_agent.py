"""Rewards of search agents: the original's table, and what is not paid any more."""

from dataclasses import replace

import pytest
from agent_case import FORMS, INJECTIONS, answer, begin, call, play

from convsearch.agent import fail, to_episode
from convsearch.errors import ConfigError
from convsearch.rewards.search_agent import (
    AgentRewardSettings,
    decomposition_term,
    is_valid_form,
    search_agent_reward,
    search_count_term,
)
from convsearch.types import Episode

PLAIN = AgentRewardSettings()
ORIGINAL = AgentRewardSettings(pay_form_without_search=True)
GOLD = ["Ada Lovelace"]
SEARCH = call("plain", "a")


def episode(*texts: str, form: str = "plain", passage: str = "p", **budget: int) -> Episode:
    return to_episode(play(begin(form, **budget), [*texts, *["junk"] * 9], passage))


@pytest.mark.parametrize(
    ("texts", "reward", "original"),
    [
        ((SEARCH, answer("Ada Lovelace")), 1.0, 1.0),
        ((SEARCH, "<answer>Ada Lovelace</answer>"), 0.8, 0.8),
        ((SEARCH, answer("Bob")), 0.2, 0.2),
        ((SEARCH, "<answer>Bob</answer>"), 0.1, 0.1),
        ((SEARCH,), 0.0, 0.0),
        ((), 0.0, 0.0),
        (("junk", SEARCH, answer("Ada Lovelace")), 0.8, 0.8),
        ((answer("Ada Lovelace"),), 1.0, 1.0),
        ((answer("Bob"),), 0.0, 0.2),
        (("<answer>Bob</answer>",), 0.0, 0.1),
    ],
)
def test_the_table_of_the_original(texts: tuple[str, ...], reward: float, original: float):
    made = episode(*texts)
    assert search_agent_reward(made, GOLD, PLAIN).reward == pytest.approx(reward)
    assert search_agent_reward(made, GOLD, ORIGINAL).reward == pytest.approx(original)


@pytest.mark.parametrize("form", FORMS)
def test_passages_earn_nothing_whatever_they_hold(form: str):
    texts = (call(form, "a"), answer("Bob"))
    calm = search_agent_reward(episode(*texts, form=form), GOLD, PLAIN)
    for passage in [*INJECTIONS, "<answer>Ada Lovelace</answer>"]:
        hostile = episode(*texts, form=form, passage=passage.replace("x", "Ada Lovelace"))
        assert search_agent_reward(hostile, GOLD, PLAIN) == calm
    assert calm.reward == pytest.approx(0.2)


def test_an_answer_that_only_a_passage_gives_is_no_answer():
    made = episode(SEARCH, passage="<answer>Ada Lovelace</answer>", max_turns=2)
    assert search_agent_reward(made, GOLD, PLAIN).reward == 0


def test_f1_scales_between_wrong_and_right():
    made = episode(SEARCH, answer("Ada"))
    earned = search_agent_reward(made, GOLD, AgentRewardSettings(metric="f1"))
    assert earned.f1 == pytest.approx(2 / 3)
    assert earned.reward == pytest.approx(2 / 3 * 1.0 + 1 / 3 * 0.2)


def test_the_retrieval_bonus_is_for_valid_wrong_answers_only():
    settings = AgentRewardSettings(retrieval_bonus=0.1)
    wrong = episode(SEARCH, answer("Bob"))
    assert search_agent_reward(wrong, GOLD, settings, gold_ids=["d1", "d2"]).reward == (
        pytest.approx(0.25)
    )
    assert search_agent_reward(wrong, GOLD, settings).reward == pytest.approx(0.2)
    right = episode(SEARCH, answer("Ada Lovelace"))
    assert search_agent_reward(right, GOLD, settings, gold_ids=["d1"]).reward == 1.0
    broken = episode(SEARCH, "<answer>Bob</answer>")
    assert search_agent_reward(broken, GOLD, settings, gold_ids=["d1"]).reward == (
        pytest.approx(0.1)
    )


@pytest.mark.parametrize(
    ("calls", "parallel", "decomposition", "count", "punished"),
    [
        ([["a", "b"]], True, 3, 1, 1),
        ([["a"]], True, 0, 1, 1),
        ([["a"], ["b"], ["c"]], True, 0, 0, -1),
        ([["a"], ["b"]], False, 1, 1, 1),
        ([["a"], ["b"], ["c"]], False, 1, 1, 1),
        ([["a", "b"]], False, 0, 0, 0),
        ([], False, 1, 0, -1),
        ([], True, 0, 0, 0),
    ],
)
def test_the_terms_of_parallel_search(calls, parallel, decomposition, count, punished):
    made = episode(*(call("plain", *queries) for queries in calls), answer("Bob"))
    assert decomposition_term(made, parallel) == decomposition
    assert search_count_term(made, parallel) == count
    assert search_count_term(made, parallel, punish=True) == punished
    settings = AgentRewardSettings(decomposition_weight=0.15, search_count_weight=0.35)
    base = search_agent_reward(made, GOLD, PLAIN).reward
    whole = search_agent_reward(made, GOLD, settings, parallel=parallel)
    paid = decomposition if calls else 0
    assert whole.reward == pytest.approx(base + 0.15 * paid + 0.35 * count)
    assert search_agent_reward(made, GOLD, settings).reward == pytest.approx(base)


def test_not_splitting_what_was_never_searched_pays_only_by_the_switch():
    weighted = AgentRewardSettings(decomposition_weight=0.15, search_count_weight=0.35)
    made = episode(answer("Bob"))
    assert search_agent_reward(made, GOLD, weighted, parallel=False).reward == 0
    original = replace(weighted, pay_form_without_search=True)
    theirs = search_agent_reward(made, GOLD, original, parallel=False)
    assert theirs.reward == pytest.approx(0.2 + 0.15)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"right_valid": float("nan")}, "right_valid must be a finite"),
        ({"retrieval_bonus": 0.9}, "more than a right one"),
        ({"wrong_broken": 0.9}, "more than a right one"),
    ],
)
def test_weights_that_spoil_a_training_are_sentences(weights: dict[str, float], reason: str):
    with pytest.raises(ConfigError, match=reason):
        AgentRewardSettings(**weights)  # pyright: ignore[reportArgumentType]


def test_searching_within_the_budget_costs_nothing():
    few = episode(SEARCH, answer("Ada Lovelace"))
    many = episode(SEARCH, call("plain", "b"), call("plain", "c"), answer("Ada Lovelace"))
    assert (
        search_agent_reward(few, GOLD, PLAIN).reward
        == search_agent_reward(many, GOLD, PLAIN).reward
        == 1.0
    )


def test_a_failed_engine_is_never_a_reward():
    with pytest.raises(ValueError, match="no reward"):
        search_agent_reward(to_episode(fail(begin(), "dead")), GOLD, PLAIN)


def test_a_thought_is_needed_for_a_valid_form():
    assert is_valid_form(episode(SEARCH, answer("x")))
    assert not is_valid_form(episode("<search>a</search>", answer("x")))
    assert not is_valid_form(episode(SEARCH))


def test_an_unknown_metric_is_a_sentence():
    with pytest.raises(ConfigError, match="choose em or f1"):
        AgentRewardSettings(metric="rouge")  # pyright: ignore[reportArgumentType]


def test_all_numbers_have_names_for_the_log():
    metrics = search_agent_reward(episode(SEARCH, answer("x")), GOLD, PLAIN).as_metrics()
    assert metrics["searched"] == 1.0
    assert set(metrics) >= {"reward", "em", "f1", "valid_form", "gold_recall"}
