"""Which conversations a run takes where it does not take all, and whether they are enough."""

import random
from collections.abc import Sequence

from convsearch.errors import ConfigError
from convsearch.types import Turn


def check_conversations(turns: Sequence[Turn]) -> None:
    """Before hours of training. Raises ConfigError for fewer than two conversations to measure on:
    the intervals of the report draw conversations."""
    found = len({turn.conv_id for turn in turns})
    if found < 2:
        raise ConfigError(
            f"{found} conversations to evaluate on; the report needs two or more: raise "
            "data.eval_turns, or hold out more conversations"
        )


def draw_conversations(turns: Sequence[Turn], limit: int, *, seed: int) -> list[Turn]:
    """At most `limit` turns, as whole conversations drawn by the seed, in the given order; all for
    a limit of 0. The first conversation drawn is taken whatever its length."""
    if not limit or len(turns) <= limit:
        return list(turns)
    sizes: dict[str, int] = {}
    for turn in turns:
        sizes[turn.conv_id] = sizes.get(turn.conv_id, 0) + 1
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    chosen, count = {order[0]}, sizes[order[0]]
    for conv_id in order[1:]:
        if count + sizes[conv_id] <= limit:
            chosen.add(conv_id)
            count += sizes[conv_id]
    return [turn for turn in turns if turn.conv_id in chosen]
