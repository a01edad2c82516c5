"""The frames of a chat as ids, so that a dialogue only grows.

Rendering a chat anew at every turn may change what was said before: templates drop old thoughts,
and text does not always become the ids again that it came from.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from convsearch.errors import CheckpointError, PromptError
from convsearch.types import ChatMessage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OWN, _REPLY = "OWNTURNMARK", "REPLYMARK"


def render_chat(
    tokenizer: "PreTrainedTokenizerBase",
    chat: Sequence[ChatMessage],
    template: Mapping[str, object] | None = None,
) -> str:
    """The text of a chat, up to where the model's turn begins. template: further arguments.

    Raises PromptError where the template refuses the chat, as some do for a system message, or
    fails on it.
    """
    options: dict[str, Any] = dict(template or {})
    try:
        return str(
            tokenizer.apply_chat_template(
                list(chat), add_generation_prompt=True, tokenize=False, **options
            )
        )
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        roles = ", ".join(message["role"] for message in chat[:8]) + (", ..." * (len(chat) > 8))
        raise PromptError(
            f"the chat template refuses a chat of {roles} ({error}); use a model whose template "
            "takes it, a form without a system message (search_r1, nano), or mend "
            "chat_template.jinja"
        ) from error


def encode_chat(
    tokenizer: "PreTrainedTokenizerBase", chat: Sequence[ChatMessage]
) -> tuple[int, ...]:
    """The ids of a chat, up to where the model's turn begins. Raises PromptError where the template
    refuses the chat, or the tokenizer its text (half of a surrogate pair, for one)."""
    text = render_chat(tokenizer, chat)
    try:
        return tuple(tokenizer.encode(text, add_special_tokens=False))
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"the tokenizer cannot read this prompt ({error})") from error


class ChatFrames:
    """A chat as ids: its opening by the template, replies by what the template puts around one.

    The frame of a reply is found by rendering a chat with marks in it. end_ids: tokens that end a
    turn of the model. template: further arguments of the chat template. Raises CheckpointError
    where the template does not show the marks.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        end_ids: frozenset[int],
        template: Mapping[str, object] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._template = template
        self._special = frozenset(tokenizer.all_special_tokens) | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        chat: list[ChatMessage] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _OWN},
            {"role": "user", "content": _REPLY},
        ]
        rendered = self._render(chat)
        _, own, rest = rendered.partition(_OWN)
        before, reply, after = rest.partition(_REPLY)
        if not own or not reply:
            raise CheckpointError(
                "the chat template does not show a message of the user after one of the model; "
                "agents need a template that keeps a conversation in order"
            )
        self._before = self._encode(before)
        self._after = self._encode(after)

    def chat_ids(self, chat: Sequence[ChatMessage]) -> list[int]:
        """The prompt of a chat, up to where the model's turn begins."""
        return self._encode(self._render(chat))

    def reply_ids(self, text: str, after: Sequence[int] | None) -> list[int]:
        """What to append so that the model reads `text` and goes on.

        after: the ids of the model's own turn, which is closed, followed by a message of the user
        and the beginning of a new turn. None: the text alone, inside the turn. No character of
        `text` becomes a special token.
        """
        content = self._content(text)
        if after is None:
            return content
        before = self._before
        if after and after[-1] in self._end_ids and before and before[0] == after[-1]:
            before = before[1:]
        return [*before, *content, *self._after]

    def _render(self, chat: Sequence[ChatMessage]) -> str:
        return render_chat(self._tokenizer, chat, self._template)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _content(self, text: str) -> list[int]:
        """`text` as ordinary tokens, also where it spells a special one."""
        for token in sorted(token for token in self._special if token in text):
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return self._encode(text)
