"""The intermediate JSON lines of the original project, for users who have made them already.

`train.json`, `dev.json` (TopiOCQA: `qid`, `question`, `context`, `positive_ctxs`) and
`train_v3.json`, `test_v3.json` (QReCC: `truth_passages` instead); and its files for supervised
fine-tuning, which have `reasoning_content` and `rewrite` beside question and context.
"""

from collections import Counter
from pathlib import Path

from convsearch.data.raw_turns import alternating, question_of
from convsearch.errors import DataError
from convsearch.files import Qrels, Record, field, read_jsonl
from convsearch.prompts.rewrite import format_response
from convsearch.types import Turn


def read_original_turns(
    path: Path, split: str, counts: Counter[str], *, first_gold_only: bool = False
) -> tuple[list[Turn], Qrels]:
    """Turns and their relevant passages. Answers, titles and rewrites in the file are not read.

    Raises MissingFileError, and DataError for a bad line or a repeated qid.
    """
    turns: list[Turn] = []
    qrels: Qrels = {}
    for where, record in read_jsonl(path):
        turn = _turn(record, split, where, counts)
        if turn.qid in qrels:
            raise DataError(f"{where}: qid {turn.qid!r} occurs twice; ids must be unique")
        golds = _golds(record, where)[: 1 if first_gold_only else None]
        if not golds:
            raise DataError(f"{where}: no relevant passage; leave the turn out or mend the line")
        qrels[turn.qid] = dict.fromkeys(golds, 1)
        turns.append(turn)
    if not turns:
        raise DataError(f"{path}: no turns in this file")
    return turns, qrels


def read_original_sft(path: Path, counts: Counter[str]) -> list[tuple[Turn, str]]:
    """(turn, response) of each line, in the well-formed shape `<think>...` `<rewrite>...`.

    A line whose rewrite is empty or holds a tag cannot be a target: it is left out and counted
    (`malformed`). Raises MissingFileError or DataError.
    """
    examples = []
    for where, record in read_jsonl(path):
        turn = _turn(record, "train", where, counts)
        think = field(record, "reasoning_content", str, where)
        try:
            response = format_response(think.strip(), field(record, "rewrite", str, where).strip())
        except DataError:
            raise
        except ValueError:
            counts["malformed"] += 1
        else:
            examples.append((turn, response))
    if not examples:
        raise DataError(f"{path}: no well-formed rewrite in this file")
    return examples


def _turn(record: Record, split: str, where: str, counts: Counter[str]) -> Turn:
    context = field(record, "context", list, where)
    question = question_of(record, "question", where)
    opening = str(context[0] if context else question)
    qid = str(record.get("qid") or f"{where}")
    conv_id, _, number = qid.rpartition("_")
    named = "qid" in record and conv_id and number.isdecimal()
    return Turn(
        qid=qid,
        conv_id=conv_id if named else f"opens with: {opening}",
        turn=int(number) if named else len(context) // 2 + 1,
        split=split,
        question=question,
        history=alternating(context, where, counts),
    )


def _golds(record: Record, where: str) -> list[str]:
    if "truth_passages" in record:
        listed = field(record, "truth_passages", list, where)
    else:
        passages = field(record, "positive_ctxs", list, where)
        listed = [each.get("passage_id") if isinstance(each, dict) else None for each in passages]
    if not all(isinstance(value, str | int) and str(value) for value in listed):
        raise DataError(f"{where}: a relevant passage has no id")
    return list(dict.fromkeys(str(value) for value in listed))
