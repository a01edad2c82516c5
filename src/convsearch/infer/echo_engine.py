"""The engine without a model: it repeats the question. For tests and dry runs."""

import re
from collections.abc import Mapping, Sequence

from convsearch.infer.engine import Generation, SamplingParams
from convsearch.prompts import asked_question, well_formed_response
from convsearch.types import ChatMessage

_TAG = re.compile(r"</?(?:think|rewrite)>")


class EchoEngine:
    """Answers every chat with a response, well formed for its prompt style, that is the chat's last
    question. A word counts as a token."""

    identity: Mapping[str, str | int | float | None] = {"engine": "echo"}

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. Sampling and seeds change nothing."""
        return [self._answer(chat) for chat, _ in zip(chats, seeds, strict=True)]

    def close(self) -> None:
        """See Engine."""

    def _answer(self, chat: list[ChatMessage]) -> Generation:
        question = _TAG.sub(" ", asked_question(chat)).strip() or "?"
        text = well_formed_response(chat, question)
        words = sum(len(message["content"].split()) for message in chat)
        return Generation(text=text, num_tokens=len(text.split()), prompt_tokens=words)
