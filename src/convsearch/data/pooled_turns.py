"""One turn of the pooled format: a line with its own history, and the passages that answer it."""

import re
from collections import Counter
from urllib.parse import quote

from convsearch.data.chats import TEXT_NAMES, speaker_of
from convsearch.errors import DataError
from convsearch.files import Record, field
from convsearch.passage_forms import id_of
from convsearch.types import Message, Turn

_UNSAFE = re.compile(r"[\s%]+")


def pooled_turn(record: Record, where: str, counts: Counter[str]) -> Turn:
    """The turn, its history mended and counted. Raises DataError for all else that is wrong."""
    if "history" not in record:
        raise DataError(
            f'{where}: no field "history": this is a single question, not a turn of a '
            "conversation; convert a conversational data set"
        )
    question = field(record, "question", str, where)
    if not question.strip():
        raise DataError(f'{where}: field "question" is empty; remove the turn or mend it')
    return Turn(
        qid=encoded(_id(record, "id", where), where, counts),
        conv_id=encoded(_id(record, "conv", where), where, counts),
        turn=field(record, "turn", int, where),
        split=field(record, "split", str, where),
        question=question,
        history=_history(field(record, "history", list, where), where, counts),
    )


def pooled_golds(record: Record, where: str) -> list[str]:
    """The relevant passages: `page_passages`, else `gold`. Raises DataError without any."""
    name = "page_passages" if "page_passages" in record else "gold"
    golds = []
    for value in field(record, name, list, where):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(f'{where}: field "{name}" must hold passage ids, found {value!r}')
        golds.append(_percent(str(value)))
    if not golds:
        raise DataError(f'{where}: field "{name}" is empty; every turn needs a relevant passage')
    return golds


def encoded_id(value: str, where: str) -> str:
    """An id of the source as it stands in a data set folder. Raises DataError for an empty one."""
    if not value:
        raise DataError(f'{where}: an id is empty; "id" and "conv" must not be')
    return _percent(value)


def encoded(value: str, where: str, counts: Counter[str]) -> str:
    """`encoded_id`, counted where it changed something."""
    encoded = encoded_id(value, where)
    counts["encoded_ids"] += encoded != value
    return encoded


def _id(record: Record, name: str, where: str) -> str:
    if name not in record:
        raise DataError(f'{where}: field "{name}" is missing')
    return id_of(record[name], f'{where}: field "{name}"')


def _history(items: list[object], where: str, counts: Counter[str]) -> tuple[Message, ...]:
    """The history in the form of `Turn`: user and agent alternate, user first, agent last."""
    messages: list[Message] = []
    for i, item in enumerate(items):
        role = speaker_of(item.get("role")) if isinstance(item, dict) else None
        if not isinstance(item, dict) or role is None:
            raise DataError(f'{where}: history[{i}] must have role "user" or "agent"')
        name = next((name for name in TEXT_NAMES if name in item), "text")
        text = field(item, name, str, f"{where}: history[{i}]")
        if messages and messages[-1].role == role:
            text = " ".join(part for part in (messages.pop().text, text) if part)
            counts["joined_messages"] += 1
        elif not messages and role == "agent":
            messages.append(Message(role="user", text=""))
            counts["added_user_messages"] += 1
        messages.append(Message(role=role, text=text))
    if messages and messages[-1].role == "user":
        messages.append(Message(role="agent", text=""))
        counts["added_agent_messages"] += 1
    return tuple(messages)


def _percent(value: str) -> str:
    """Percent-encodes white space, and then the percent sign too; other ids stay as they are."""
    if value.split() == [value]:
        return value
    return _UNSAFE.sub(lambda match: quote(match[0], safe=""), value)
