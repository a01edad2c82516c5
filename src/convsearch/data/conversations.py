"""The one reader of conversations: ours, chat logs, tables, turns with their own history, BEIR.

| form | a line |
| --- | --- |
| ours | `{"id", "turns": [{"question", "answer", "relevant"}]}` |
| chat log | `{"id", "messages": [{"role", "content", "relevant"}]}` (ShareGPT's names too) |
| table | `.csv`, `.tsv`: a row a message (`conversation_id, role, text, relevant`) |
| pooled | `{"id", "conv", "turn", "split", "question", "history", "gold"}`: one turn |
| BEIR | `{"_id", "text"}`: single questions, with `qrels/*.tsv` beside them |
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from convsearch.data.beir import read_beir_qrels
from convsearch.data.chat_tables import SPLIT_NAMES, conversations_of_table
from convsearch.data.chats import Exchange, exchanges_of, is_message, relevant_in, said_of
from convsearch.data.json_array import read_json_array
from convsearch.data.pooled_turns import pooled_turn
from convsearch.errors import DataError
from convsearch.files import Record, field, read_jsonl, read_lines
from convsearch.passage_forms import found_in, id_of
from convsearch.tables import is_table
from convsearch.types import Message

ID_NAMES = ("id", "conv_id", "conversation_id", "conv", "_id")
LIST_NAMES = ("turns", "messages", "conversations", "conversation", "dialogue", "dialog")
RELEVANT_NAMES = ("relevant", "gold", "page_passages", "doc_ids", "passage_ids")
QUESTION_NAMES = ("question", "query")
ANSWER_NAMES = ("answer", "response")
WANTED = (
    'a conversation is {"id", "turns": [{"question", "answer", "relevant"}]} or {"id", '
    '"messages": [{"role", "content", "relevant"}]} a line, or rows of a .csv with the columns '
    "conversation_id, role, text, relevant (docs/own-data.md)"
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question in its conversation, and what answers it."""

    where: str
    qid: str
    conv_id: str
    number: int
    """From 1 within the conversation."""
    split: str | None
    """As the file names it."""
    question: str
    history: tuple[Message, ...]
    relevant: tuple[str, ...]
    """Ids of passages; empty where nothing is known to answer it."""


def read_conversations(path: Path, counts: Counter[str]) -> list[Asked]:
    """All questions of a file in any of the forms, in its order.

    counts: gets what had to be joined or left out. Raises DataError that names file, line, what was
    found and what is wanted; MissingFileError without the file.
    """
    if is_table(path):
        asked = [
            each
            for conv_id, rows in conversations_of_table(path, counts).items()
            for each in _asked(conv_id, rows.where, rows.split, rows.exchanges)
        ]
    else:
        asked = _of_json(path, counts)
    if not asked:
        raise DataError(f"{path}: no conversations in this file; {WANTED}")
    return asked


def _of_json(path: Path, counts: Counter[str]) -> list[Asked]:
    records = _records(path)
    first = next(records, None)
    if first is None:
        return []
    if "history" in first[1] and "question" in first[1]:
        return _pooled(chain([first], records), counts)
    if _is_beir(first[1]):
        return _beir(path, chain([first], records), counts)
    asked: list[Asked] = []
    seen: set[str] = set()
    for number, (where, record) in enumerate(chain([first], records), 1):
        conv_id, exchanges = _conversation(record, number, where, counts)
        if conv_id in seen:
            raise DataError(f"{where}: conversation {conv_id!r} occurs twice; ids must be unique")
        seen.add(conv_id)
        asked += _asked(conv_id, where, _split(record, where), exchanges)
    return asked


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    """Lines, or the entries of one array."""
    line = next((line for _, line in read_lines(path)), "{")
    begins = line.lstrip("\ufeff \t")[:1]
    if begins == "[" and path.suffix != ".gz":
        return read_json_array(path)
    if begins != "{":
        raise DataError(
            f"{path}:1: no JSON object, and no table by its name; name a table .csv or .tsv: "
            f"{WANTED}"
        )
    return read_jsonl(path)


def _asked(
    conv_id: str, where: str, split: str | None, exchanges: Sequence[Exchange]
) -> Iterator[Asked]:
    said: list[Message] = []
    first = 0 if exchanges and not exchanges[0].question else 1
    for number, exchange in enumerate(exchanges, first):
        if number:
            yield Asked(
                where=where,
                qid=f"{conv_id}_{number}",
                conv_id=conv_id,
                number=number,
                split=split,
                question=exchange.question,
                history=tuple(said),
                relevant=tuple(dict.fromkeys(exchange.relevant)),
            )
        said += [
            Message(role="user", text=exchange.question),
            Message(role="agent", text=exchange.answer),
        ]


def _conversation(
    record: Record, number: int, where: str, counts: Counter[str]
) -> tuple[str, list[Exchange]]:
    name = next((name for name in LIST_NAMES if name in record), None)
    if name is None:
        raise DataError(f'{where}: field "turns" is missing{found_in(record)}; {WANTED}')
    items = field(record, name, list, where)
    id_name = next((each for each in ID_NAMES if each in record and each != name), None)
    if any(map(is_message, items)):
        # a log without ids: the place in the file is one
        conv_id = f"c{number}" if id_name is None else _id(record, id_name, where)
        said = []
        for i, item in enumerate(items, 1):
            place = f"{where}, message {i}"
            named = relevant_in(item, RELEVANT_NAMES, place) if isinstance(item, dict) else []
            said.append(said_of(item, place, named))
        return conv_id, exchanges_of(said, counts)
    conv_id = _id(record, id_name or ID_NAMES[0], where)
    return conv_id, [
        _exchange(item, f"{where}, turn {position}") for position, item in enumerate(items, 1)
    ]


def _exchange(item: object, where: str) -> Exchange:
    if not isinstance(item, dict):
        raise DataError(f"{where}: must be an object with question, answer and relevant")
    name = next((name for name in QUESTION_NAMES if name in item), None)
    if name is None:
        raise DataError(f'{where}: field "question" is missing{found_in(item)}')
    question = field(item, name, str, where).strip()
    if not question:
        raise DataError(f'{where}: field "{name}" is empty; remove the turn or mend it')
    answer_name = next((name for name in ANSWER_NAMES if item.get(name) is not None), None)
    answer = field(item, answer_name, str, where) if answer_name else ""
    return Exchange(
        question=question, answer=answer, relevant=relevant_in(item, RELEVANT_NAMES, where)
    )


def _id(record: Record, name: str, where: str) -> str:
    if name not in record:
        raise DataError(f'{where}: field "{name}" is missing{found_in(record)}; {WANTED}')
    conv_id = id_of(record[name], f'{where}: field "{name}"')
    if conv_id.split() != [conv_id]:
        raise DataError(
            f'{where}: field "{name}" must be a non-empty id without white space, found {conv_id!r}'
        )
    return conv_id


def _split(record: Record, where: str) -> str | None:
    value = record.get("split")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f'{where}: "split" must be train, dev or test, found {value!r}')
    return SPLIT_NAMES.get(value, value)


def _pooled(records: Iterator[tuple[str, Record]], counts: Counter[str]) -> list[Asked]:
    """Turns that bring their own history."""
    asked: dict[str, Asked] = {}
    for where, record in records:
        turn = pooled_turn({"split": "", **record}, where, counts)
        if turn.qid in asked:
            raise DataError(f"{where}: id {turn.qid!r} occurs twice; turn ids must be unique")
        asked[turn.qid] = Asked(
            where=where,
            qid=turn.qid,
            conv_id=turn.conv_id,
            number=turn.turn,
            split=SPLIT_NAMES.get(turn.split, turn.split) or None,
            question=turn.question,
            history=turn.history,
            relevant=tuple(relevant_in(record, ("page_passages", *RELEVANT_NAMES), where)),
        )
    return list(asked.values())


def _is_beir(record: Record) -> bool:
    return (
        "text" in record
        and ("_id" in record or "id" in record)
        and not (record.keys() & {*LIST_NAMES, "history"})
    )


def _beir(path: Path, records: Iterator[tuple[str, Record]], counts: Counter[str]) -> list[Asked]:
    judged = read_beir_qrels(path)
    asked: dict[str, Asked] = {}
    for where, record in records:
        name = "_id" if "_id" in record else "id"
        qid = _id(record, name, where)
        if qid in asked:
            raise DataError(f"{where}: question {qid!r} occurs twice; ids must be unique")
        question = field(record, "text", str, where).strip()
        if not question:
            raise DataError(f'{where}: field "text" is empty; remove the question or mend it')
        if qid not in judged:  # belongs to no split
            counts["turns_without_gold"] += 1
            continue
        split, golds = judged[qid]
        asked[qid] = Asked(
            where=where,
            qid=qid,
            conv_id=qid,
            number=1,
            split=split,
            question=question,
            history=(),
            relevant=tuple(golds),
        )
    return list(asked.values())
