"""Rank-incentive reward shaping (RIRS) of ConvSearch-R1 (arXiv 2505.15776, section 3.3).

The rank of the best gold passage becomes a piecewise linear reward: ranks 1..10 fall from 2 to 1,
ranks 11..100 from just under 1 to 0. A malformed response earns -0.1 whatever it would find.
"""

HEAD_CUT = 10
"""Last rank of the steep piece."""
TAIL_CUT = 100
"""Rank whose reward is 0, and last rank that is looked at."""
MALFORMED_REWARD = -0.1


def rank_incentive_reward(rank: int | None) -> float:
    """Reward of a well-formed rewrite.

    rank: 1-based rank of the best gold passage, None where none was found within the cut.
    Returns a number in [0, 2]: `(19 - rank) / 9` up to rank 10, `(100 - rank) / 90` up to 100,
    else 0.
    Raises ValueError for a rank below 1: ranks are 1-based and "not found" is None, never a number.
    """
    if rank is None:
        return 0.0
    if rank < 1:
        raise ValueError(f"rank must be 1 or more, or None where nothing was found; got {rank}")
    if rank <= HEAD_CUT:
        return (2 * HEAD_CUT - 1 - rank) / (HEAD_CUT - 1)
    if rank <= TAIL_CUT:
        return (TAIL_CUT - rank) / (TAIL_CUT - HEAD_CUT)
    return 0.0
