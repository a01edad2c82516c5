"""The conversations of TopiOCQA: `topiocqa_train.json` and `topiocqa_dev.json`, turn by turn.

The published dev data is our split `test`, as in the papers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from convsearch.data.json_array import read_json_array
from convsearch.data.raw_turns import alternating, question_of
from convsearch.errors import DataError
from convsearch.files import Record, field
from convsearch.types import Turn

SET_NAME = "topiocqa"
SPLIT_OF = {"train": "train", "dev": "test"}
"""Published split -> ours."""
PUBLISHED_TURNS = {
    "num_raw_train_turns": 45_450,
    "num_raw_train_conversations": 3_509,
    "num_raw_test_turns": 2_514,
    "num_raw_test_conversations": 205,
}
"""arXiv 2505.15776, table 7."""
PUBLISHED_PASSAGES = 25_700_592
"""The comment on the corpus in the preprocessing of the same authors."""


class TopicTurn(NamedTuple):
    """A turn, and what the raw file knows of it besides."""

    where: str
    key: tuple[str, int]
    """Conversation and number, as the raw files pair by."""
    turn: Turn
    topic: str
    """Title of the turn's Wikipedia page, empty where none is named. It comes from the gold."""


def read_topic_turns(path: Path, raw_split: str, counts: Counter[str]) -> Iterator[TopicTurn]:
    """All turns of a published split, in the file's order. Raises DataError that names the entry,
    also for a turn that occurs twice."""
    seen: set[tuple[str, int]] = set()
    for where, record in read_json_array(path):
        conv, number = key = turn_key(record, "Conversation_no", "Turn_no", where)
        if key in seen:
            raise DataError(f"{where}: conversation {conv}, turn {number} occurs twice")
        seen.add(key)
        context = field(record, "Context", list, where)
        turn = Turn(
            qid=f"{SET_NAME}-{raw_split}_{conv}_{number}",
            conv_id=f"{SET_NAME}-{raw_split}_{conv}",
            turn=number,
            split=SPLIT_OF[raw_split],
            question=question_of(record, "Question", where),
            history=alternating(context, where, counts),
        )
        yield TopicTurn(where, key, turn, str(record.get("Topic") or "").strip())


def turn_key(record: Record, conv_name: str, turn_name: str, where: str) -> tuple[str, int]:
    """Conversation and number of a turn. Raises DataError where they are none."""
    conv = record.get(conv_name)
    if not isinstance(conv, str | int) or not str(conv).strip():
        raise DataError(f'{where}: field "{conv_name}" must be a number or an id')
    turn = record.get(turn_name)
    if isinstance(turn, str) and turn.strip().isdecimal():
        return str(conv).strip(), int(turn)
    return str(conv).strip(), field(record, turn_name, int, where)


def switches_by_topic(turns: Sequence[Turn], topics: Mapping[str, str]) -> dict[str, bool | None]:
    """qid -> whether the topic differs from the turn before's; None where one is not known.

    topics: qid -> topic of all turns, also of those that are left out: `topics.topic_switches`
    would not look at them.
    """
    switches: dict[str, bool | None] = {}
    for turn in turns:
        before = topics.get(f"{turn.conv_id}_{turn.turn - 1}", "")
        own = topics[turn.qid]
        switches[turn.qid] = before != own if before and own else None
    return switches
