"""Reward shapes against their formulas (arXiv 2505.15776, table 6 and figure 5)."""

import itertools
import math
from pathlib import Path

import pytest
from convsearch_verl.rewrite_score import compute_score, malformed_score, rank_score
from convsearch_verl.settings import retriever_settings
from hypothesis import given
from hypothesis import strategies as st

from convsearch.errors import ConfigError
from convsearch.eval.metrics import per_query_metrics
from convsearch.rewards.rank_incentive import MALFORMED_REWARD, rank_incentive_reward
from convsearch.rewards.shapes import REWARD_SHAPES, shaped_reward
from convsearch.train.grpo_settings import GrpoSettings, grpo_overrides
from convsearch.types import Hit

SERVER = {"url": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("piecewise", {1: 2.0, 2: 17 / 9, 10: 1.0, 11: 89 / 90, 100: 0.0}),
        ("exponential", {1: 1.0, 2: 0.36787944117, 3: 0.13533528323, 10: 0.0001234098}),
        ("reciprocal", {1: 1.0, 2: 0.5, 4: 0.25, 100: 0.01}),
        ("mrr_3", {1: 1.0, 3: 1 / 3, 4: 0.0}),
        ("ndcg_3", {1: 1.0, 2: 0.63092975357, 3: 0.5, 4: 0.0}),
        ("recall_10", {1: 1.0, 10: 1.0, 11: 0.0}),
        ("recall_100", {1: 1.0, 100: 1.0, 101: 0.0}),
    ],
)
def test_values_of_the_formulas(shape: str, values: dict[int, float]):
    for rank, reward in values.items():
        assert shaped_reward(shape, rank) == pytest.approx(reward, abs=1e-10)


@pytest.mark.parametrize("shape", REWARD_SHAPES)
def test_no_shape_pays_more_for_a_worse_rank_or_less_than_nothing(shape: str):
    rewards = [shaped_reward(shape, rank) for rank in range(1, 201)]
    assert all(a >= b for a, b in itertools.pairwise(rewards))
    assert rewards[0] > rewards[-1] >= shaped_reward(shape, None) == 0.0 > MALFORMED_REWARD


@pytest.mark.parametrize("shape", ["piecewise", "exponential", "reciprocal"])
def test_shapes_of_table_6_tell_every_two_ranks_apart(shape: str):
    rewards = [shaped_reward(shape, rank) for rank in range(1, 101)]
    assert all(a > b for a, b in itertools.pairwise(rewards))


@given(st.integers(1, 300))
def test_metric_shapes_are_the_metrics_of_a_single_gold(rank: int):
    hits = [Hit(doc_id="gold" if i == rank else f"d{i}", score=-float(i)) for i in range(1, 301)]
    measured = per_query_metrics({"q": {"gold": 1}}, {"q": hits})["q"]
    assert shaped_reward("reciprocal", rank) == pytest.approx(measured["mrr"], abs=1e-6)
    assert shaped_reward("ndcg_3", rank) == pytest.approx(measured["ndcg_cut_3"], abs=1e-6)
    assert shaped_reward("recall_10", rank) == measured["recall_10"]
    assert shaped_reward("recall_100", rank) == measured["recall_100"]


@pytest.mark.parametrize("shape", REWARD_SHAPES)
def test_ranks_below_one_are_refused(shape: str):
    with pytest.raises(ValueError, match="1 or more"):
        shaped_reward(shape, 0)


def test_the_default_is_the_papers_and_the_switch_changes_the_score_alone():
    assert retriever_settings(SERVER).reward == "piecewise"
    assert rank_score(3)["score"] == rank_incentive_reward(3)
    exponential = rank_score(3, retriever_settings({**SERVER, "reward": "exponential"}).reward)
    assert exponential["score"] == math.exp(-2)
    assert {**exponential, "score": 0.0} == {**rank_score(3), "score": 0.0}
    assert malformed_score()["score"] == MALFORMED_REWARD


def test_the_command_hands_the_shape_to_the_trainer(tmp_path: Path):
    common = {"model_path": tmp_path, "train_file": tmp_path, "out_dir": tmp_path, "total_steps": 1}
    told = {
        shape: [
            o
            for o in grpo_overrides(GrpoSettings(**common, **chosen))
            if o.startswith("retriever.reward=")
        ]
        for shape, chosen in (("piecewise", {}), ("exponential", {"reward": "exponential"}))
    }
    assert told == {shape: [f"retriever.reward='{shape}'"] for shape in told}
    with pytest.raises(ConfigError, match="unknown reward 'linear'"):
        GrpoSettings(**common, reward="linear")


def test_an_unknown_shape_is_named():
    for call in (
        lambda: shaped_reward("linear", 1),
        lambda: retriever_settings({**SERVER, "reward": "linear"}),
        lambda: compute_score("toy", "no tags", ["p"], reward="linear"),
    ):
        with pytest.raises(ConfigError, match="unknown reward 'linear'; choose one of piecewise"):
            call()
