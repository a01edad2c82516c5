"""Reads back from a run folder what the report shows. Nothing here computes a result anew."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import field, read_jsonl, read_turns
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.rivals import shown_rows, strongest
from convsearch.pipeline.summary import Summary, read_summary
from convsearch.types import Message, Turn

NUM_EXAMPLES = 6
"""Of each kind: largest gains, drawn ones, largest losses."""
NEWEST_MESSAGES = 2
"""Messages of a conversation that a page shows at once: the newest question and its answer."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was searched for one turn, and what came of it."""

    query: str
    rank: int | None
    status: str
    """`ok`, or why the raw question was searched instead: `malformed`, `failed`, `missing`."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One turn with every source's query side by side."""

    turn: Turn
    outcomes: dict[str, Outcome]

    @property
    def older(self) -> list[Message]:
        """What was said before the newest exchange."""
        return [m for m in self.turn.history[:-NEWEST_MESSAGES] if m.text]

    @property
    def newest(self) -> list[Message]:
        """The newest exchange before the question."""
        return [m for m in self.turn.history[-NEWEST_MESSAGES:] if m.text]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Questions that grpo ranks higher than another row, equally, and lower."""

    against: str
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """MRR over parts of the questions."""

    title: str
    sizes: dict[str, int]
    """Label of a part -> its questions."""
    mrr: dict[str, dict[str, float]]
    """Row -> label -> mean."""

    def best(self, label: str) -> float:
        """Highest mean of a part."""
        return max(of_row[label] for of_row in self.mrr.values())


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """One line of `metrics.jsonl`."""

    stage: str
    step: int
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """All that the report needs."""

    summary: Summary
    outcomes: dict[str, dict[str, Outcome]]
    """source -> qid -> what was searched, in the order of the evaluation."""
    steps: list[LoggedStep]
    examples: list[Example]
    """Drawn by the seed."""
    gains: list[Example]
    """Where grpo gains most over the strongest row without training, best first."""
    losses: list[Example]
    """Where it loses most, worst first."""
    tallies: list[Tally]
    breakdowns: list[Breakdown]


def load_run(root: Path) -> RunFolder:
    """Reads a finished run. Raises MissingFileError or DataError that names the file."""
    layout = RunLayout(root=root)
    summary = read_summary(layout.summary)
    rows = shown_rows(summary.stages)
    rival = strongest(summary.stages)
    outcomes = {name: _read_outcomes(layout.queries(name)) for name in rows}
    turns = {turn.qid: turn for turn in read_turns(layout.data / "turns.jsonl")}
    evaluated = [turns[qid] for qid in outcomes["raw"] if qid in turns]
    return RunFolder(
        summary=summary,
        outcomes=outcomes,
        steps=_read_steps(layout.metrics) if layout.metrics.is_file() else [],
        examples=pick_examples(evaluated, outcomes, seed=summary.seed),
        gains=pick_changes(evaluated, outcomes, rival, sign=1),
        losses=pick_changes(evaluated, outcomes, rival, sign=-1),
        tallies=[_tally(outcomes, other) for other in dict.fromkeys(("raw", rival, "base", "sft"))],
        breakdowns=_breakdowns(layout, list(dict.fromkeys(("raw", rival, *POLICIES)))),
    )


def pick_examples(
    turns: Sequence[Turn], outcomes: dict[str, dict[str, Outcome]], *, seed: int
) -> list[Example]:
    """One turn with history from each of NUM_EXAMPLES conversations, drawn by the seed, never by
    rank."""
    conversations: dict[str, list[Turn]] = {}
    for turn in turns:
        if turn.history and all(turn.qid in by_qid for by_qid in outcomes.values()):
            conversations.setdefault(turn.conv_id, []).append(turn)
    draw = random.Random(seed)
    chosen = draw.sample(sorted(conversations), min(NUM_EXAMPLES, len(conversations)))
    picked = [draw.choice(conversations[conv_id]) for conv_id in chosen]
    return [_example(turn, outcomes) for turn in picked]


def pick_changes(
    turns: Sequence[Turn], outcomes: dict[str, dict[str, Outcome]], rival: str, *, sign: int
) -> list[Example]:
    """The turns whose reciprocal rank grpo raises most over `rival` (sign 1), or lowers most (-1);
    one a conversation, equal changes by qid."""
    ours, theirs = outcomes["grpo"], outcomes[rival]
    change = {
        turn.qid: sign * (_reciprocal(ours[turn.qid]) - _reciprocal(theirs[turn.qid]))
        for turn in turns
        if turn.qid in ours and turn.qid in theirs
    }
    found: dict[str, Turn] = {}
    for turn in sorted(turns, key=lambda turn: (-change.get(turn.qid, 0), turn.qid)):
        if change.get(turn.qid, 0) > 0:
            found.setdefault(turn.conv_id, turn)
    return [_example(turn, outcomes) for turn in list(found.values())[:NUM_EXAMPLES]]


def _example(turn: Turn, outcomes: dict[str, dict[str, Outcome]]) -> Example:
    return Example(turn=turn, outcomes={name: rows[turn.qid] for name, rows in outcomes.items()})


def _reciprocal(outcome: Outcome) -> float:
    return 1 / outcome.rank if outcome.rank else 0.0


def _tally(outcomes: dict[str, dict[str, Outcome]], against: str) -> Tally:
    other = outcomes[against]
    changes = [
        _reciprocal(row) - _reciprocal(other[qid])
        for qid, row in outcomes["grpo"].items()
        if qid in other
    ]
    wins, losses = (sum(sign * change > 0 for change in changes) for sign in (1, -1))
    return Tally(against=against, wins=wins, ties=len(changes) - wins - losses, losses=losses)


def _breakdowns(layout: RunLayout, names: Sequence[str]) -> list[Breakdown]:
    """By turn and by topic switch, where every row's `metrics.json` has them."""
    records = {}
    for name in names:
        path = layout.eval(name) / "metrics.json"
        if not path.is_file():
            return []
        records[name] = json.loads(path.read_text(encoding="utf-8"))
    found = []
    for key, title in (("by_turn", "by turn"), ("by_topic_switch", "by topic switch")):
        groups = {name: record.get(key) or {} for name, record in records.items()}
        sizes = {label: group["num_queries"] for label, group in groups[names[0]].items()}
        mrr = {
            name: {label: group["metrics"]["mrr"] for label, group in of_row.items()}
            for name, of_row in groups.items()
        }
        if sizes and all(of_row.keys() == sizes.keys() for of_row in mrr.values()):
            found.append(Breakdown(title=title, sizes=sizes, mrr=mrr))
    return found


def _read_outcomes(path: Path) -> dict[str, Outcome]:
    rows = {}
    for where, record in read_jsonl(path):
        rank = record.get("rank")
        if rank is not None and not isinstance(rank, int):
            raise DataError(f'{where}: field "rank" must be a whole number or null')
        rows[field(record, "qid", str, where)] = Outcome(
            query=field(record, "query", str, where),
            rank=rank,
            status=field(record, "status", str, where),
        )
    return rows


def _read_steps(path: Path) -> list[LoggedStep]:
    return [
        LoggedStep(
            stage=field(record, "stage", str, where),
            step=field(record, "step", int, where),
            values={
                key: float(value)
                for key, value in record.items()
                if isinstance(value, int | float) and key not in ("stage", "step")
            },
        )
        for where, record in read_jsonl(path, allow_nan=True)
    ]
