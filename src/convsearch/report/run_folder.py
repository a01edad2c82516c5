"""Reads back from a run folder what the report shows. Nothing here computes a result anew."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import field, read_jsonl, read_turns
from convsearch.pipeline.layout import COMPARED, RunLayout
from convsearch.pipeline.summary import Summary, read_summary
from convsearch.types import Turn

NUM_EXAMPLES = 10


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


def load_run(root: Path) -> RunFolder:
    """Reads a finished run. Raises MissingFileError or DataError that names the file."""
    layout = RunLayout(root=root)
    summary = read_summary(layout.summary)
    outcomes = {name: _read_outcomes(layout.queries(name)) for name in COMPARED}
    turns = {turn.qid: turn for turn in read_turns(layout.data / "turns.jsonl")}
    evaluated = [turns[qid] for qid in outcomes["raw"] if qid in turns]
    return RunFolder(
        summary=summary,
        outcomes=outcomes,
        steps=_read_steps(layout.metrics) if layout.metrics.is_file() else [],
        examples=pick_examples(evaluated, outcomes, seed=summary.seed),
    )


def pick_examples(
    turns: Sequence[Turn], outcomes: dict[str, dict[str, Outcome]], *, seed: int
) -> list[Example]:
    """One turn with history from each of ten conversations, drawn by the seed, never by rank."""
    conversations: dict[str, list[Turn]] = {}
    for turn in turns:
        if turn.history and all(turn.qid in by_qid for by_qid in outcomes.values()):
            conversations.setdefault(turn.conv_id, []).append(turn)
    draw = random.Random(seed)
    chosen = draw.sample(sorted(conversations), min(NUM_EXAMPLES, len(conversations)))
    picked = [draw.choice(conversations[conv_id]) for conv_id in chosen]
    return [
        Example(turn=turn, outcomes={name: rows[turn.qid] for name, rows in outcomes.items()})
        for turn in picked
    ]


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
