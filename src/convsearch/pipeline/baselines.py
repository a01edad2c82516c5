"""Queries that need no training: fixed concatenations of the conversation, and unions of queries.

Published work found such queries to equal trained rewriters surprisingly often, so they stand in
every table.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from convsearch.errors import ConfigError
from convsearch.pipeline.searched import Searched
from convsearch.types import Turn

_BASELINE = re.compile(r"raw|history(?::([1-9][0-9]*))?")


def baseline_queries(turns: Sequence[Turn], baseline: str) -> dict[str, str]:
    """qid -> query. `raw`: the question as asked. `history`: all that was said before, and the
    question. `history:K`: the last K exchanges (question and answer), and the question.

    Raises ConfigError for another name.
    """
    match = check_baseline(baseline)
    if baseline == "raw":
        return {turn.qid: turn.question for turn in turns}
    if match[1] is None:
        return {turn.qid: turn.history_query for turn in turns}
    last = 2 * int(match[1])
    return {
        turn.qid: " ".join([*(m.text for m in turn.history[-last:] if m.text), turn.question])
        for turn in turns
    }


def is_concatenation(baseline: str) -> bool:
    """Whether the question stands at the end of what was said before it."""
    return baseline != "raw"


def check_baseline(baseline: str) -> re.Match[str]:
    """Raises ConfigError for what is not the name of a baseline."""
    match = _BASELINE.fullmatch(baseline)
    if match is None:
        raise ConfigError(
            f"unknown baseline {baseline!r}; choose raw or history, or history:3 for the last 3 "
            "exchanges"
        )
    return match


def joined_queries(parts: Sequence[Sequence[Searched]]) -> list[Searched]:
    """The union by text: each turn's queries one after the other, in one query.

    A part without a well-formed rewrite of a turn adds nothing to it; where no part has one, the
    raw question stays. The status is `ok` where every part's is, else the first other one.
    parts: the same turns in the same order, two methods or more. The pseudo-document that is put
    behind the question is the method of SPQE (arXiv 2510.17139).
    """
    joined = []
    for same_turn in zip(*parts, strict=True):
        good = [s.query for s in same_turn if s.status == "ok"]
        status = next((s.status for s in same_turn if s.status != "ok"), "ok")
        query = " ".join(good) if good else same_turn[0].query
        joined.append(replace(same_turn[0], query=query, status=status))
    return joined
