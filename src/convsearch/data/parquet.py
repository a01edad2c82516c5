"""Training files for verl: of rewriters and of search agents (column names are verl's own).

A file of a rewriter says in its metadata in which prompt style its rows are (`Asking`).
"""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from convsearch.errors import DataError, DependencyError, install_command
from convsearch.files import Qrels, gold_ids, writing
from convsearch.prompts.asking import Asking, as_record, asking_of, parse_asking
from convsearch.prompts.rewrite import TrainedStyle, rewrite_messages
from convsearch.types import Question, Turn

if TYPE_CHECKING:
    import pyarrow as pa

ABILITY = "query_rewriting"
AGENT_ABILITY = "question_answering"
AGENT_LOOP = "search_agent"
"""verl's agent loop that plays the rows of `write_agent_parquet`."""
_METADATA = b"convsearch"


def write_sft_parquet(
    path: Path,
    examples: Sequence[tuple[Turn, str]],
    *,
    style: TrainedStyle,
    known: Mapping[str, object] | None = None,
) -> int:
    """Writes one row for each (turn, well-formed response); returns how many.

    Columns: `messages` (the zero-shot prompt and the response as assistant, for verl's
    `MultiTurnSFTDataset`) and `extra_info` (`split`, `index`, `query_id`). known: further fields of
    Asking, for the model that will be trained.
    Raises DataError where there is nothing to write.
    """
    if not examples:
        raise DataError(f"{path}: no examples to write; make more candidates or widen the filter")
    rows = [
        {
            "messages": [
                *rewrite_messages(turn, style),
                {"role": "assistant", "content": response},
            ],
            "extra_info": {"split": turn.split, "index": index, "query_id": turn.qid},
        }
        for index, (turn, response) in enumerate(examples)
    ]
    columns = {"messages": _chat(), "extra_info": _info()}
    _write(path, rows, columns, asking_of(style, **(known or {})))
    return len(rows)


def write_grpo_parquet(
    path: Path,
    turns: Sequence[Turn],
    qrels: Qrels,
    *,
    style: TrainedStyle,
    data_source: str,
) -> int:
    """Writes one row for each turn, for verl's `RLHFDataset`; returns how many.

    Columns: `data_source`, `prompt`, `ability`, `reward_model` (`ground_truth`: the relevant
    passages' ids) and `extra_info` (`split`, `index`, `answer`, `question`, `query_id`). No answer
    is carried: `answer` is there, and empty, for code written for the original's files.
    Raises DataError where there is nothing to write or a turn has no relevant passage.
    """
    if not turns:
        raise DataError(f"{path}: no turns to write; check the split")
    rows = []
    for index, turn in enumerate(turns):
        golds = gold_ids(qrels, turn.qid)
        if not golds:
            raise DataError(f"{path}: turn {turn.qid!r} has no relevant passage in the qrels")
        rows.append(
            {
                "data_source": data_source,
                "prompt": rewrite_messages(turn, style),
                "ability": ABILITY,
                "reward_model": {"style": "rule", "ground_truth": golds},
                "extra_info": {
                    "split": turn.split,
                    "index": index,
                    "answer": "",
                    "question": turn.question,
                    "query_id": turn.qid,
                },
            }
        )
    arrow = _import_arrow()
    columns = {
        "data_source": arrow.string(),
        "prompt": _chat(),
        "ability": arrow.string(),
        "reward_model": arrow.struct(
            {"style": arrow.string(), "ground_truth": arrow.list_(arrow.string())}
        ),
        "extra_info": _info("answer", "question"),
    }
    _write(path, rows, columns, asking_of(style, dataset=data_source))
    return len(rows)


def write_agent_parquet(path: Path, questions: Sequence[Question], qrels: Qrels) -> int:
    """Writes one row for each question that has an accepted answer; returns how many.

    Columns: `data_source`, `prompt` (the bare question; the loop builds the instruction of its
    strategy around it), `agent_name`, `ability`, `reward_model` (`ground_truth`: the accepted
    answers) and `extra_info` (`split`, `index`, `question`, `type`, `golds`, `query_id`).
    Raises DataError where there is nothing to write.
    """
    answered = [question for question in questions if question.answers]
    if not answered:
        raise DataError(f"{path}: no question has an accepted answer; check the split")
    rows = [
        {
            "data_source": question.dataset,
            "prompt": [{"role": "user", "content": question.question}],
            "agent_name": AGENT_LOOP,
            "ability": AGENT_ABILITY,
            "reward_model": {"style": "rule", "ground_truth": list(question.answers)},
            "extra_info": {
                "split": question.split,
                "index": index,
                "question": question.question,
                "type": question.type,
                "golds": gold_ids(qrels, question.qid) if question.qid in qrels else [],
                "query_id": question.qid,
            },
        }
        for index, question in enumerate(answered)
    ]
    arrow = _import_arrow()
    texts = arrow.list_(arrow.string())
    info = _info("question", "type")
    columns = {
        "data_source": arrow.string(),
        "prompt": _chat(),
        "agent_name": arrow.string(),
        "ability": arrow.string(),
        "reward_model": arrow.struct({"style": arrow.string(), "ground_truth": texts}),
        "extra_info": arrow.struct([*info, arrow.field("golds", texts)]),
    }
    _write(path, rows, columns)
    return len(rows)


def read_rows_asking(path: Path) -> Asking | None:
    """In which prompt style the rows of a training file are, and what they were made with; None
    where the file does not tell. Raises DataError as `read_asking`, and for no Parquet file."""
    found = (_schema(path).metadata or {}).get(_METADATA)
    return parse_asking(found.decode("utf-8"), str(path)) if found else None


def is_for_agents(path: Path) -> bool:
    """Whether a training file is one of `write_agent_parquet`. Raises DataError for none."""
    return "agent_name" in _schema(path).names


def _schema(path: Path) -> "pa.Schema":
    arrow = _import_arrow()
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        return parquet.read_schema(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error}); make it again") from None


def _chat() -> "pa.DataType":
    arrow = _import_arrow()
    return arrow.list_(arrow.struct({"role": arrow.string(), "content": arrow.string()}))


def _info(*texts: str) -> "pa.DataType":
    arrow = _import_arrow()
    strings = dict.fromkeys(texts, arrow.string())
    return arrow.struct(
        {"split": arrow.string(), "index": arrow.int64(), **strings, "query_id": arrow.string()}
    )


def _write(
    path: Path,
    rows: list[dict[str, object]],
    columns: "dict[str, pa.DataType]",
    asking: Asking | None = None,
) -> None:
    """Writes through a temporary name, so that the file is whole or absent."""
    arrow = _import_arrow()
    parquet = importlib.import_module("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        record = {_METADATA: json.dumps(as_record(asking)).encode()} if asking else None
        schema = arrow.schema(columns, metadata=record)
        table = arrow.Table.from_pylist(rows, schema=schema)
        with writing(path):
            parquet.write_table(table, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _import_arrow() -> ModuleType:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise DependencyError(f"pyarrow is not installed; run {install_command('train')}") from None
