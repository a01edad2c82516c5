"""The interval: by conversation, seeded, of the right width."""

import math
import random

import pytest

from convsearch.errors import ConfigError, DataError
from convsearch.eval import bootstrap_interval


def conversations(num: int, size: int, seed: int) -> dict[str, list[float]]:
    """Turns of one conversation share its value: as dependent as turns can be."""
    rng = random.Random(seed)
    return {f"c{i}": [rng.random()] * size for i in range(num)}


def test_same_seed_same_interval_in_any_order():
    values = conversations(40, 5, 0)
    turned = dict(reversed(values.items()))
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(turned, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_width_follows_the_number_of_conversations_not_of_turns():
    few = bootstrap_interval(conversations(50, 1, 3), seed=0, resamples=4000)
    same = bootstrap_interval(conversations(50, 20, 3), seed=0, resamples=4000)
    assert few == pytest.approx(same, abs=1e-12)
    values = [v[0] for v in conversations(50, 1, 3).values()]
    mean = sum(values) / 50
    standard_error = math.sqrt(sum((v - mean) ** 2 for v in values) / 50 / 50)
    assert few[0] == pytest.approx(mean - 1.96 * standard_error, abs=0.15 * standard_error)
    assert few[1] == pytest.approx(mean + 1.96 * standard_error, abs=0.15 * standard_error)


def test_it_is_the_mean_over_turns_so_long_conversations_weigh_more():
    low, high = bootstrap_interval({"long": [1.0] * 99, "short": [0.0]}, seed=0, resamples=2000)
    assert (low, high) == (0.0, 1.0)
    middle = bootstrap_interval(
        {f"long{i}": [1.0] * 9 + [0.0] for i in range(30)} | {"empty": []}, seed=0
    )
    assert middle == pytest.approx((0.9, 0.9))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for trial in range(120):
        low, high = bootstrap_interval(
            conversations(60, 3, 1000 + trial), seed=trial, resamples=200
        )
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 120 <= 0.99


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(DataError):
        bootstrap_interval({"c": []}, seed=0)
    with pytest.raises(ConfigError):
        bootstrap_interval({"c": [1.0]}, seed=0, level=1.0)
