"""Engines that continue a dialogue by token ids (why by ids: `agent.frames`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from convsearch.infer.engine import Engine, SamplingParams
from convsearch.types import ChatMessage


@dataclass(frozen=True, kw_only=True)
class TokenGeneration:
    """The ids that one prompt was continued with, or the reason why there are none."""

    ids: tuple[int, ...] = ()
    """As they were drawn, the end token included where one was."""
    text: str = ""
    """The ids decoded, special tokens left out."""
    error: str | None = None


@runtime_checkable
class TokenEngine(Engine, Protocol):
    """An engine that takes ids and gives ids."""

    def chat_ids(self, chat: Sequence[ChatMessage]) -> list[int]:
        """The prompt of a chat, up to where the model's turn begins."""
        ...

    def reply_ids(self, text: str, after: Sequence[int] | None) -> list[int]:
        """What to append so that the model reads `text` and goes on.

        after: the ids of the model's own turn, which is closed, followed by a message of the user
        and the beginning of a new turn. None: the text alone, inside the turn. No character of
        `text` becomes a special token.
        """
        ...

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int],
        stop: Sequence[str] = (),
    ) -> list[TokenGeneration]:
        """One continuation for each prompt, by position; seeds as in Engine.

        stop: strings after which a continuation ends; the token that completes one stays.
        """
        ...
