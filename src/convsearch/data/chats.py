"""Chat logs as lists of messages: who speaks, and how messages become exchanges.

A user's messages in a row are one question, an agent's one answer (joined with a blank); what the
agent says before the first question is a greeting, and stays in the histories. Instructions
(`system`), calls of tools and empty messages are left out. All of it is counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from convsearch.errors import DataError
from convsearch.passage_forms import found_in

USER = ("user", "human", "customer", "client", "visitor")
AGENT = ("agent", "assistant", "bot", "gpt", "model", "operator", "support")
LEFT_OUT = ("tool", "function", "developer", "observation")
SYSTEM = "system"
"""An instruction; where nobody else answers the user (MultiWOZ), the agent."""
ROLE_NAMES = ("role", "from", "speaker", "author", "sender")
TEXT_NAMES = ("content", "text", "value", "message", "utterance", "body")
JOINED, SKIPPED, GREETINGS = "joined_messages", "left_out_messages", "greetings"
"""Names of the counts."""


@dataclass(kw_only=True)
class Exchange:
    """What the user asks and the agent answers."""

    question: str
    """Empty where the agent spoke first."""
    answer: str = ""
    relevant: list[str] = field(default_factory=list)
    """Ids of passages that answer the question; those named at the answer too."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message as it was read."""

    where: str
    role: str
    text: str
    relevant: Sequence[str] = ()


def is_message(item: object) -> bool:
    """Whether an entry of a list is a message of a chat log."""
    return isinstance(item, dict) and any(name in item for name in ROLE_NAMES)


def said_of(item: object, where: str, relevant: Sequence[str]) -> Said:
    """One message of JSON: its role, and its text or texts. Raises DataError for another form."""
    if not isinstance(item, dict) or not is_message(item):
        raise DataError(f'{where}: must be a message with "role" and "content"')
    role = next(item[name] for name in ROLE_NAMES if name in item)
    name = next((name for name in TEXT_NAMES if name in item), None)
    if name is None and role not in LEFT_OUT and "tool_calls" not in item:
        raise DataError(f'{where}: field "content" is missing{found_in(item)}')
    text = _text(item[name] if name else None, f'{where}: field "{name}"')
    if not isinstance(role, str):
        raise DataError(f'{where}: "role" must be user or assistant, found {role!r}')
    return Said(where=where, role=role.strip().lower(), text=text, relevant=relevant)


def speaker_of(role: object) -> Literal["user", "agent"] | None:
    """Who that is; None for anything else."""
    if not isinstance(role, str):
        return None
    name = role.strip().lower()
    return "user" if name in USER else "agent" if name in AGENT else None


def exchanges_of(messages: Sequence[Said], counts: Counter[str]) -> list[Exchange]:
    """The messages of one conversation as exchanges; see above. Raises DataError for a role that
    nobody knows."""
    agents = {*AGENT}
    if not any(message.role in AGENT for message in messages):
        agents.add(SYSTEM)
    exchanges: list[Exchange] = []
    previous = ""
    for message in messages:
        is_user, is_agent = message.role in USER, message.role in agents
        if not is_user and not is_agent and message.role not in (SYSTEM, *LEFT_OUT):
            raise DataError(
                f"{message.where}: role {message.role!r} is none of user, assistant, agent and "
                "system; name the speakers so"
            )
        if not message.text or not (is_user or is_agent):
            counts[SKIPPED] += 1
            if exchanges:
                exchanges[-1].relevant += message.relevant
            continue
        kind = "user" if is_user else "agent"
        counts[JOINED] += previous == kind
        if is_user and previous != "user":
            exchanges.append(Exchange(question=message.text))
        elif is_user:
            exchanges[-1].question += f" {message.text}"
        elif not exchanges:
            exchanges.append(Exchange(question="", answer=message.text))
            counts[GREETINGS] += 1
        else:
            exchanges[-1].answer = f"{exchanges[-1].answer} {message.text}".strip()
        exchanges[-1].relevant += message.relevant
        previous = kind
    return exchanges


def _text(value: object, what: str) -> str:
    """A text, or the texts of a list of parts (`{"type": "text", "text": ...}`)."""
    if value is None:
        return ""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, dict)]
        return " ".join(part.strip() for part in parts if isinstance(part, str)).strip()
    if not isinstance(value, str):
        raise DataError(f"{what} must be a text, found {type(value).__name__}")
    return value.strip()


def relevant_in(item: Mapping[str, object], names: Sequence[str], where: str) -> list[str]:
    """The ids under the first of these names: a list of texts or numbers, one id, or several in one
    text, parted by blanks, commas, semicolons or bars. Raises DataError for anything else."""
    name = next((name for name in names if item.get(name) is not None), None)
    if name is None:
        return []
    value = item[name]
    if isinstance(value, str):
        return list(dict.fromkeys(_parted(value)))
    listed = value if isinstance(value, list) else [value]
    ids = []
    for each in listed:
        if isinstance(each, float) and each.is_integer():
            each = int(each)
        is_id = isinstance(each, str | int) and not isinstance(each, bool)
        if not is_id or str(each).split() != [str(each)]:
            raise DataError(f'{where}: "{name}" must hold passage ids, found {each!r}')
        ids.append(str(each))
    return list(dict.fromkeys(ids))


def _parted(value: str) -> list[str]:
    for mark in ",;|":
        value = value.replace(mark, " ")
    return value.split()
