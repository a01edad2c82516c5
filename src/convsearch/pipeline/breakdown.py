"""The means of an evaluation over parts of its queries: by turn depth and by topic switch."""

from collections.abc import Callable
from typing import TypedDict

from convsearch.eval import mean_metrics
from convsearch.pipeline.evaluation import Evaluation, intervals_by_conversation
from convsearch.pipeline.searched import Searched

TURN_GROUPS = (("1", 1), ("2", 2), ("3", 3), ("4-6", 6))
"""Label and last turn of each group; what comes later is LATER_TURNS."""
LATER_TURNS = "7+"
TOPIC_GROUPS = ("first", "same", "switch", "unknown")
"""The first turn of a conversation; a turn on the topic of the one before it; on another; a later
turn of which the data do not say it."""


class Group(TypedDict):
    """One part of the queries, as `metrics.json` holds it."""

    num_queries: int
    num_averaged: int
    metrics: dict[str, float] | None
    """Means over the averaged ones; None where there is none."""
    mrr_interval_95: tuple[float, float] | None
    """By conversation; None for fewer than two conversations."""


def by_turn(evaluation: Evaluation) -> dict[str, Group] | None:
    """Groups by position in the conversation, empty ones left out; None where it is not known."""
    if any(s.turn is None for s in evaluation.searched):
        return None
    labels = [*(label for label, _ in TURN_GROUPS), LATER_TURNS]
    return _groups(evaluation, labels, turn_group)


def by_topic_switch(evaluation: Evaluation) -> dict[str, Group] | None:
    """Groups of TOPIC_GROUPS, empty ones left out; None where no switch is known."""
    if all(s.topic_switch is None for s in evaluation.searched):
        return None
    return _groups(evaluation, TOPIC_GROUPS, topic_group)


def turn_group(searched: Searched) -> str:
    """The label of TURN_GROUPS, or LATER_TURNS; also for a query whose turn is not known."""
    turn = searched.turn
    return next(
        (label for label, last in TURN_GROUPS if turn is not None and turn <= last), LATER_TURNS
    )


def topic_group(searched: Searched) -> str:
    """The label of TOPIC_GROUPS."""
    if searched.topic_switch is None:
        return "first" if searched.turn == 1 else "unknown"
    return "switch" if searched.topic_switch else "same"


def _groups(
    evaluation: Evaluation, labels: list[str] | tuple[str, ...], label_of: Callable[[Searched], str]
) -> dict[str, Group]:
    members: dict[str, list[Searched]] = {label: [] for label in labels}
    for s in evaluation.searched:
        members[label_of(s)].append(s)
    return {label: _group(evaluation, found) for label, found in members.items() if found}


def _group(evaluation: Evaluation, members: list[Searched]) -> Group:
    kept = {s.qid: evaluation.per_query[s.qid] for s in members if s.qid in evaluation.averaged}
    intervals = intervals_by_conversation(members, kept, seed=evaluation.seed)
    return Group(
        num_queries=len(members),
        num_averaged=len(kept),
        metrics=mean_metrics(kept) if kept else None,
        mrr_interval_95=intervals["mrr"] if intervals else None,
    )
