"""A prompt from the user's own file, such as the one that a released checkpoint was trained with.

The words `{conversation}` and `{question}` are replaced; the rest is sent as it is, as one message
of the user.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.prompts.conversation import conversation_lines
from convsearch.texts import read_text
from convsearch.types import ChatMessage, Turn

PLACEHOLDERS = ("conversation", "question")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """Text with placeholders. Raises DataError where `{question}` is missing, or where a word that
    is no placeholder stands in braces."""

    text: str
    where: str
    """File that it came from, for messages."""

    def __post_init__(self) -> None:
        named = set(_PLACEHOLDER.findall(self.text))
        known = " and ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        if unknown := sorted(named - set(PLACEHOLDERS)):
            raise DataError(
                f"{self.where}: {{{unknown[0]}}} is no placeholder; a prompt file has {known}"
            )
        if "question" not in named:
            raise DataError(f"{self.where}: {{question}} is missing; a prompt file has {known}")

    def messages(self, turn: Turn) -> list[ChatMessage]:
        """The chat for a turn. `{conversation}` is `Q1: ...`, `A1: ...` and so on, one line an
        utterance, empty at the first question. Braces in what people said stay as they are."""
        said = {"conversation": conversation_lines(turn), "question": turn.question}
        text = _PLACEHOLDER.sub(lambda match: said[match[1]], self.text)
        return [{"role": "user", "content": text}]


def read_template(path: Path) -> PromptTemplate:
    """Reads a prompt file; the line end at its very end, which editors add, is no part of it.
    Raises MissingFileError, and DataError for text that is none or lacks a placeholder."""
    text = read_text(path)
    return PromptTemplate(text=text.removesuffix("\n"), where=str(path))
