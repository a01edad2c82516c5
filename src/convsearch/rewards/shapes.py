"""Reward shapes by name: from the rank of the best gold passage to what a rewrite earns.

`piecewise` is the reward of ConvSearch-R1 (arXiv 2505.15776, section 3.3) and the default. Table 6
of the paper sets `exponential` and `reciprocal` against it; the others are the metric rewards of
its figure 5, computed as if the best gold passage were the only one, since that is the one rank a
server counts. A malformed response earns MALFORMED_REWARD under every shape.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

from convsearch.errors import ConfigError
from convsearch.rewards.rank_incentive import rank_incentive_reward

RewardShape = Literal[
    "piecewise", "exponential", "reciprocal", "mrr_3", "ndcg_3", "recall_10", "recall_100"
]
REWARD_SHAPES: tuple[str, ...] = get_args(RewardShape)

_OF_RANK: dict[str, Callable[[int], float]] = {
    "piecewise": rank_incentive_reward,
    "exponential": lambda rank: math.exp(1 - rank),
    "reciprocal": lambda rank: 1 / rank,
    "mrr_3": lambda rank: 1 / rank if rank <= 3 else 0.0,
    "ndcg_3": lambda rank: 1 / math.log2(rank + 1) if rank <= 3 else 0.0,
    "recall_10": lambda rank: float(rank <= 10),
    "recall_100": lambda rank: float(rank <= 100),
}


def shaped_reward(shape: str, rank: int | None) -> float:
    """Reward of a well-formed rewrite under one shape.

    rank: 1-based rank of the best gold passage, None where none was found within the cut, which
    earns 0. `piecewise` lies in [0, 2], every other shape in [0, 1].
    Raises ConfigError for an unknown shape, ValueError for a rank below 1.
    """
    check_shape(shape)
    if rank is None:
        return 0.0
    if rank < 1:
        raise ValueError(f"rank must be 1 or more, or None where nothing was found; got {rank}")
    return _OF_RANK[shape](rank)


def check_shape(shape: object) -> None:
    """Raises ConfigError for a name that is no reward shape."""
    if shape not in REWARD_SHAPES:
        raise ConfigError(f"unknown reward {shape!r}; choose one of {', '.join(REWARD_SHAPES)}")
