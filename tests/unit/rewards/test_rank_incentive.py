"""The reward against the paper's formula (arXiv 2505.15776, section 3.3) in exact arithmetic."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsearch.rewards.rank_incentive import MALFORMED_REWARD, TAIL_CUT, rank_incentive_reward


def paper(rank: int) -> Fraction:
    """[1, 10] onto [2, 1] and (10, 100] onto [1, 0], both linear; 0 beyond."""
    if rank <= 10:
        return 2 + Fraction(rank - 1, 10 - 1) * (1 - 2)
    if rank <= 100:
        return 1 + Fraction(rank - 10, 100 - 10) * (0 - 1)
    return Fraction(0)


@given(st.integers(1, 10_000))
def test_it_is_the_papers_formula(rank: int):
    assert rank_incentive_reward(rank) == pytest.approx(float(paper(rank)), abs=1e-12)


@pytest.mark.parametrize(
    ("rank", "reward"),
    [
        (1, 2.0),
        (2, 1.889),
        (10, 1.0),
        (11, 0.989),
        (50, 0.556),
        (100, 0.0),
        (101, 0.0),
        (None, 0.0),
    ],
)
def test_values_that_the_papers_code_gives(rank: int | None, reward: float):
    assert rank_incentive_reward(rank) == pytest.approx(reward, abs=5e-4)


@given(st.integers(1, TAIL_CUT - 1))
def test_a_better_rank_always_earns_more(rank: int):
    assert rank_incentive_reward(rank) > rank_incentive_reward(rank + 1)


@given(st.one_of(st.none(), st.integers(1)))
def test_it_lies_in_range_and_above_malformed(rank: int | None):
    assert MALFORMED_REWARD < 0 <= rank_incentive_reward(rank) <= 2
    assert MALFORMED_REWARD == -0.1


@given(st.integers(max_value=0))
def test_ranks_below_one_are_refused(rank: int):
    with pytest.raises(ValueError, match="1 or more"):
        rank_incentive_reward(rank)
