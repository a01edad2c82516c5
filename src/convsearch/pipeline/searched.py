"""What an evaluation searches: one query for each turn, and what became of its rewrite.

No turn is left out. One without a well-formed rewrite is searched with its raw question, as a
system in use would, and its status says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from convsearch.errors import ConfigError, DataError
from convsearch.types import Rewrite, Turn

QueryStatus = Literal["ok", "missing", "malformed", "failed"]
"""`ok`: searched as given. Else what the rewrites hold for the turn; `missing` is nothing."""


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """How much of a query is searched."""

    words: int | None = None
    """First words of every query; None takes all."""
    tokens: int | None = None
    """First tokens that a dense engine reads of a question or a rewrite; None takes its own limit,
    64 (the paper's)."""
    concat_tokens: int = 512
    """The same for concatenations, whose question stands at the end (the paper's)."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One query of the evaluation."""

    qid: str
    query: str
    """What is searched; an empty text finds nothing."""
    status: QueryStatus = "ok"
    conv_id: str | None = None
    """None where only qids are known; there is no interval then."""
    turn: int | None = None
    """1-based position in the conversation."""
    topic_switch: bool | None = None
    """Whether its topic is another than that of the turn before; None where that is not known."""


def searched_queries(
    turns: Sequence[Turn],
    queries: Mapping[str, str],
    switches: Mapping[str, bool | None] | None = None,
) -> list[Searched]:
    """`queries[qid]` for each turn; one without a query counts as missing, and its raw question is
    searched.

    switches: qid -> topic switch, as the data set knows it. Raises DataError for a query of an
    unknown qid.
    """
    _check_known(turns, queries)
    return [
        _searched(
            t, queries.get(t.qid, t.question), "ok" if t.qid in queries else "missing", switches
        )
        for t in turns
    ]


def searched_rewrites(
    turns: Sequence[Turn],
    rewrites: Sequence[Rewrite],
    switches: Mapping[str, bool | None] | None = None,
) -> list[Searched]:
    """Each turn's rewrite, or its raw question where it has none that is well-formed.

    Raises DataError for a rewrite of an unknown qid and for several candidates for one turn.
    """
    by_qid = one_per_turn(rewrites)
    _check_known(turns, by_qid)
    searched = []
    for turn in turns:
        rewrite = by_qid.get(turn.qid)
        text = rewrite.text if rewrite else None
        status = rewrite.status if rewrite else "missing"
        searched.append(_searched(turn, turn.question if text is None else text, status, switches))
    return searched


def cut_queries(searched: Sequence[Searched], max_words: int | None) -> list[Searched]:
    """The same with the first max_words words of each query; None cuts nothing.

    Raises ConfigError for a limit below 1.
    """
    if max_words is None:
        return list(searched)
    if max_words < 1:
        raise ConfigError(f"a query needs 1 word or more; got --max-query-words {max_words}")
    return [
        replace(s, query=" ".join(s.query.split()[:max_words]))
        if len(s.query.split()) > max_words
        else s
        for s in searched
    ]


def one_per_turn(rewrites: Sequence[Rewrite]) -> dict[str, Rewrite]:
    """Rewrites by qid. Raises DataError where a turn has several candidates."""
    by_qid = {r.qid: r for r in rewrites}
    if len(by_qid) < len(rewrites):
        twice = next(qid for qid, n in Counter(r.qid for r in rewrites).items() if n > 1)
        raise DataError(
            f"the rewrites hold several candidates for qid {twice!r}; evaluation takes one a turn "
            '(run "convsearch infer" with --candidates 1)'
        )
    return by_qid


def _searched(
    turn: Turn, query: str, status: QueryStatus, switches: Mapping[str, bool | None] | None
) -> Searched:
    return Searched(
        qid=turn.qid,
        query=query,
        status=status,
        conv_id=turn.conv_id,
        turn=turn.turn,
        topic_switch=(switches or {}).get(turn.qid),
    )


def _check_known(turns: Sequence[Turn], qids: Mapping[str, object]) -> None:
    known = {turn.qid for turn in turns}
    unknown = next((qid for qid in qids if qid not in known), None)
    if unknown is not None:
        raise DataError(
            f"qid {unknown!r} has a query and is not among the {len(known)} turns; evaluate with "
            "the data set and split that the queries were made from"
        )
