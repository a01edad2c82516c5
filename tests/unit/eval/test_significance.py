"""The randomisation test against enumeration by hand, and what it must do under the null."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import permutation_test

from convsearch.errors import ConfigError, DataError
from convsearch.eval.significance import holm, randomisation_test


def by_enumeration(sums: list[Fraction]) -> Fraction:
    """Share of all sign flips whose sum is at least as far from 0 as the observed one."""
    observed = abs(sum(sums))
    flips = list(itertools.product((1, -1), repeat=len(sums)))
    hits = sum(
        abs(sum(s * sign for s, sign in zip(sums, f, strict=True))) >= observed for f in flips
    )
    return Fraction(hits, len(flips))


@pytest.mark.parametrize(
    ("sums", "p"),
    [
        ([1], Fraction(1)),
        ([1, 1, 1], Fraction(2, 8)),  # only +++ and --- reach 3
        ([3, 1, -1], Fraction(6, 8)),  # |3| is missed by +,-,- and -,+,+ alone, which give 1
        ([Fraction(1, 3), Fraction(1, 3), Fraction(-2, 3)], Fraction(1)),
        ([Fraction(1, 2), Fraction(1, 3), Fraction(1, 7), Fraction(-1, 9)], None),
        ([Fraction(1, k) for k in range(1, 11)], Fraction(2, 1024)),
        ([Fraction(1, k) for k in range(1, 10)] + [Fraction(-1, 2)], None),
    ],
)
def test_few_units_are_enumerated(sums: list, p: Fraction | None):
    exact = by_enumeration([Fraction(s) for s in sums])
    assert p is None or exact == p
    units = {f"c{i}": [[float(s)]] for i, s in enumerate(sums)}
    assert randomisation_test(units, seed=0) == [pytest.approx(float(exact), abs=1e-12)]


def test_a_conversation_flips_as_one():
    """Six turns in two conversations have four flips, not sixty-four."""
    units = {"a": [[0.5], [0.25], [0.25]], "b": [[1.0], [0.5], [0.5]]}
    assert randomisation_test(units, seed=0) == [0.5]
    turns = {f"{name}{i}": [row] for name, rows in units.items() for i, row in enumerate(rows)}
    assert randomisation_test(turns, seed=0) == [pytest.approx(2 / 64)]


def many(num_units: int, seed: int, shift: float = 0.0) -> dict[str, list[list[float]]]:
    rng = np.random.default_rng(seed)
    return {
        f"c{i}": (rng.normal(size=(int(rng.integers(1, 5)), 2)) + shift).tolist()
        for i in range(num_units)
    }


def test_drawn_flips_come_near_the_enumeration():
    units = many(12, seed=3, shift=0.3)
    exact = randomisation_test(units, seed=0, permutations=2**12)
    drawn = randomisation_test(units, seed=0, permutations=2**12 - 1)
    assert exact != drawn
    assert drawn == [pytest.approx(p, abs=0.03) for p in exact]


def test_scipy_gives_the_same():
    units = many(11, seed=5, shift=0.2)
    sums = np.array([np.sum(rows, axis=0) for rows in units.values()]).T
    scipys = permutation_test(
        (sums,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=2**11, axis=-1,
    )  # fmt: skip
    ours = randomisation_test(units, seed=0)
    assert ours == pytest.approx(list(scipys.pvalue), abs=1e-12)


def test_the_order_of_methods_and_of_conversations_does_not_matter():
    units = many(40, seed=1)
    first = randomisation_test(units, seed=7)
    other = {name: [[-v for v in row] for row in rows] for name, rows in units.items()}
    assert randomisation_test(other, seed=7) == first
    assert randomisation_test(dict(reversed(units.items())), seed=7) == first
    assert randomisation_test(units, seed=8) != first
    assert randomisation_test(units, seed=8) == [pytest.approx(p, abs=0.03) for p in first]


def test_equal_methods_have_no_difference_and_a_constant_gain_has_the_smallest_p():
    assert randomisation_test({"a": [[0.0, 0.0]], "b": [[0.5, 0.5], [-0.5, -0.5]]}, seed=0) == [
        1.0,
        1.0,
    ]
    gain = {f"c{i}": [[0.1]] for i in range(60)}
    assert randomisation_test(gain, seed=0) == [pytest.approx(1 / 10_000)]


def test_under_the_null_small_p_values_are_as_seldom_as_they_say():
    """400 experiments without a difference; turns of a conversation are alike, which a test that
    flips turns would mistake for evidence."""
    rng = np.random.default_rng(2026)
    by_conversation, by_turn = [], []
    for experiment in range(400):
        effects = rng.normal(size=20)
        rows = [effect + 0.3 * rng.normal(size=5) for effect in effects]
        units = {f"c{i}": [[v] for v in row] for i, row in enumerate(rows)}
        turns = {f"c{i}t{j}": [[v]] for i, row in enumerate(rows) for j, v in enumerate(row)}
        by_conversation += randomisation_test(units, seed=0, permutations=199)
        if experiment < 100:
            by_turn += randomisation_test(turns, seed=0, permutations=199)
    assert 0.025 <= np.mean(np.array(by_conversation) <= 0.05) <= 0.08
    assert 0.45 <= np.mean(np.array(by_conversation) <= 0.5) <= 0.55
    assert np.mean(np.array(by_turn) <= 0.05) > 0.25


def test_holm_by_hand():
    # sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1 -> .02, .03, .06, .04 lifted to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_impossible_tests_are_refused():
    with pytest.raises(DataError, match="no turn"):
        randomisation_test({"a": []}, seed=0)
    with pytest.raises(ConfigError, match="permutations"):
        randomisation_test({"a": [[1.0]]}, seed=0, permutations=0)
