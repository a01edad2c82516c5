"""Prompts that are too long lose their oldest turns; the instruction and the question never.

Works on chats, because a training file and an engine hold chats and no turns. Read back are the
forms that `conversation` writes, and a conversation told as messages.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convsearch.prompts.conversation import CONVERSATION_HEADING, NO_CONVERSATION, QUESTION_HEADING
from convsearch.types import ChatMessage

_BARE_LINE = re.compile(r"[QA]: ")


@dataclass(frozen=True, kw_only=True)
class Shortened:
    """A chat that fits."""

    chat: list[ChatMessage]
    num_dropped: int
    """Oldest exchanges (a question and its answer) that it lost."""
    num_left: int
    """Earlier exchanges that are still in it."""


def shortened(
    chat: Sequence[ChatMessage],
    fits: Callable[[list[ChatMessage]], bool],
    *,
    told_as_messages: bool = True,
) -> Shortened | None:
    """The chat without as many of its oldest exchanges as make it fit; None where it does not fit
    without any of them.

    told_as_messages: whether earlier messages of the chat may go too, where its last question
    holds no conversation; False where they may be worked examples or somebody else's chat.
    """
    versions = _versions(list(chat), told_as_messages)
    if fits(versions[0]):
        dropped = 0
    elif len(versions) == 1 or not fits(versions[-1]):
        return None
    else:
        low, dropped = 0, len(versions) - 1  # versions[low] is too long, versions[dropped] fits
        while dropped - low > 1:
            middle = (low + dropped) // 2
            if fits(versions[middle]):
                dropped = middle
            else:
                low = middle
    return Shortened(
        chat=versions[dropped], num_dropped=dropped, num_left=len(versions) - 1 - dropped
    )


def _versions(chat: list[ChatMessage], told_as_messages: bool) -> list[list[ChatMessage]]:
    """The chat without its k oldest exchanges, at position k."""
    asked = max((i for i, m in enumerate(chat) if m["role"] == "user"), default=None)
    if asked is None:
        return [chat]
    contents = _headed(chat[asked]["content"]) or _bare(chat[asked]["content"])
    if contents:
        return [
            chat,
            *(
                [*chat[:asked], {**chat[asked], "content": content}, *chat[asked + 1 :]]
                for content in contents
            ),
        ]
    return _told(chat, asked) if told_as_messages else [chat]


def _headed(content: str) -> list[str]:
    """The shorter versions of a conversation under its heading; none for another text."""
    before, heading, rest = content.partition(CONVERSATION_HEADING)
    said, asked, question = rest.partition(f"\n{QUESTION_HEADING}")  # the first: never too little
    if not heading or not asked:
        return []
    messages = _numbered(said)
    versions = []
    for first in range(2, len(messages) + 1, 2):
        lines = (
            f"{'Q' if i % 2 == 0 else 'A'}{i // 2 + 1}: {text}"
            for i, text in enumerate(messages[first:])
        )
        kept = "\n".join(lines) or NO_CONVERSATION
        versions.append(f"{before}{heading}{kept}{asked}{question}")
    return versions


def _numbered(said: str) -> list[str]:
    """The messages of `Q1: ...`, `A1: ...`, in order; each begins at the first line that carries
    its number."""
    texts: list[str] = []
    rest = said
    while rest:
        mark = f"{'QA'[len(texts) % 2]}{len(texts) // 2 + 1}: "
        if not texts:
            if not rest.startswith(mark):
                return []
            before, rest = "", rest.removeprefix(mark)
        else:
            before, found, after = rest.partition(f"\n{mark}")
            texts[-1] = before
            if not found:
                break
            rest = after
        texts.append(rest)
    return texts


def _bare(content: str) -> list[str]:
    """The shorter versions of a conversation in bare lines; none for another text."""
    lines = content.split("\n")
    if len(lines) < 2 or not all(map(_BARE_LINE.match, lines)):
        return []
    starts = [i for i, line in enumerate(lines) if line.startswith("Q: ") and i > 0]
    return ["\n".join(lines[i:]) for i in starts]


def _told(chat: list[ChatMessage], asked: int) -> list[list[ChatMessage]]:
    """The versions of a chat whose earlier messages are the conversation."""
    opening = next(i for i, m in enumerate(chat) if m["role"] != "system")
    starts = [i for i in range(opening + 1, asked + 1) if chat[i]["role"] == "user"]
    return [chat, *([*chat[:opening], *chat[i:]] for i in starts)]
