"""Conversations as rows of a `.csv` or `.tsv`: a row a message, or a row an exchange."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convsearch.data.chats import Exchange, Said, exchanges_of, relevant_in
from convsearch.errors import DataError
from convsearch.tables import read_table

NAMES = {
    "conv": (
        "conversation_id",
        "conversation",
        "conv_id",
        "conv",
        "chat_id",
        "session_id",
        "dialog_id",
        "dialogue_id",
        "thread_id",
        "ticket_id",
        "id",
    ),
    "role": ("role", "speaker", "from", "author", "sender"),
    "text": ("text", "content", "message", "utterance", "body"),
    "question": ("question", "query"),
    "answer": ("answer", "response"),
    "relevant": ("relevant", "gold", "doc_ids", "doc_id", "passage_ids", "passage_id"),
    "split": ("split",),
}
"""Column -> names it may have."""
SPLIT_NAMES = {"validation": "dev", "valid": "dev", "val": "dev"}
"""Other names of splits -> ours."""


@dataclass(kw_only=True)
class Rows:
    """One conversation of a table."""

    where: str
    split: str | None = None
    said: list[Said] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)


def conversations_of_table(path: Path, counts: Counter[str]) -> dict[str, Rows]:
    """Conversations by id, in the order of their first rows; rows of one may be parted by others.

    Raises DataError for a header without the wanted columns, a row of another length, an empty id
    or question, or two splits of one conversation.
    """
    conversations: dict[str, Rows] = {}
    columns: dict[str, int] = {}
    width = 0
    for where, row in read_table(path):
        if not columns:
            columns, width = _columns(row, where), len(row)
            continue
        if len(row) != width:
            raise DataError(f"{where}: expected {width} columns as in the header, found {len(row)}")
        cells = {name: row[at].strip() for name, at in columns.items()}
        if cells["conv"].split() != [cells["conv"]]:
            raise DataError(f"{where}: {cells['conv']!r} is not an id without white space")
        rows = conversations.setdefault(cells["conv"], Rows(where=where))
        _add_split(rows, cells.get("split", ""), where)
        relevant = relevant_in(cells, ("relevant",), where)
        if "role" in columns:
            said = Said(
                where=where, role=cells["role"].lower(), text=cells["text"], relevant=relevant
            )
            rows.said.append(said)
            continue
        if not cells["question"]:
            raise DataError(f"{where}: the question is empty; remove the row or mend it")
        rows.exchanges.append(
            Exchange(question=cells["question"], answer=cells.get("answer", ""), relevant=relevant)
        )
    for rows in conversations.values():
        rows.exchanges += exchanges_of(rows.said, counts)
    return conversations


def _columns(header: Sequence[str], where: str) -> dict[str, int]:
    """Column -> its place."""
    given = [cell.strip().lower().replace(" ", "_") for cell in header]
    columns = {
        column: given.index(name)
        for column, names in NAMES.items()
        if (name := next((name for name in names if name in given), None)) is not None
    }
    is_messages = {"conv", "role", "text"} <= columns.keys()
    if not is_messages and not {"conv", "question"} <= columns.keys():
        raise DataError(
            f"{where}: the header names {', '.join(header[:8])}; wanted: conversation_id, role, "
            "text (a row a message) or conversation_id, question, answer (a row an exchange), and "
            "relevant, split where there are any (docs/own-data.md)"
        )
    if not is_messages:
        columns.pop("role", None)
    return columns


def _add_split(rows: Rows, named: str, where: str) -> None:
    if not named:
        return
    split = SPLIT_NAMES.get(named, named)
    if rows.split not in (None, split):
        raise DataError(f"{where}: split {named!r}, but {rows.split!r} in {rows.where}")
    rows.split = split
