"""Engines that continue a dialogue by token ids, and the frames of a chat as ids.

Rendering a chat anew at every turn may change what was said before: templates drop old thoughts,
and text does not always become the ids again that it came from. A dialogue of ids only grows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from convsearch.errors import CheckpointError
from convsearch.infer.engine import Engine, SamplingParams
from convsearch.types import ChatMessage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OWN, _REPLY = "OWNTURNMARK", "REPLYMARK"


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


class ChatFrames:
    """What a chat template puts around a message, found by rendering one with marks in it.

    Raises CheckpointError where the template does not show the marks.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        chat = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _OWN},
            {"role": "user", "content": _REPLY},
        ]
        rendered = str(
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        )
        _, own, rest = rendered.partition(_OWN)
        before, reply, after = rest.partition(_REPLY)
        if not own or not reply:
            raise CheckpointError(
                "the chat template does not show a message of the user after one of the model; "
                "agents need a template that keeps a conversation in order"
            )
        self._before = self._encode(before)
        self._after = self._encode(after)

    def reply_ids(self, text: str, after: Sequence[int] | None) -> list[int]:
        """See TokenEngine."""
        content = self._content(text)
        if after is None:
            return content
        before = self._before
        if after and after[-1] in self._end_ids and before and before[0] == after[-1]:
            before = before[1:]
        return [*before, *content, *self._after]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _content(self, text: str) -> list[int]:
        """`text` as ordinary tokens, also where it spells a special one."""
        special = [token for token in self._tokenizer.all_special_tokens if token in text]
        for token in special:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return self._encode(text)
