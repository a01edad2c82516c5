"""Room for an answer: a conversation too long for the model loses its oldest turns, as in training.

Only prompts of the rewriting styles are cut, whose text says what is conversation; of any other
chat nothing is taken away, and the engine answers it as far as there is room.
"""

import logging
from collections.abc import Callable, Sequence

from convsearch.prompts.shortening import shortened
from convsearch.types import ChatMessage

logger = logging.getLogger(__name__)

ANSWER_SHARE = 4
"""An answer has its max_tokens, or this part of what the model reads, whichever is less."""


class Room:
    """Turns chats into ids that leave room. Counts those that were cut, and says so in the log."""

    def __init__(self, context: int, encode: Callable[[list[ChatMessage]], Sequence[int]]) -> None:
        """context: tokens that the model reads, prompt and answer together."""
        self._context = context
        self._encode = encode
        self.num_shortened = 0

    def ids(self, chat: list[ChatMessage], max_tokens: int) -> tuple[int, ...]:
        """The prompt's ids; those of the whole chat where cutting turns would not help."""
        most = self._context - min(max_tokens, self._context // ANSWER_SHARE)
        whole = tuple(self._encode(chat))
        if len(whole) <= most:
            return whole
        cut = shortened(
            chat, lambda shorter: len(self._encode(shorter)) <= most, told_as_messages=False
        )
        if cut is None:
            return whole
        if not self.num_shortened:
            logger.warning(
                "a prompt of %d tokens leaves no room in the %d that the model reads: its oldest "
                "turns are left out, here and wherever a prompt is as long",
                *(len(whole), self._context),
            )
        self.num_shortened += 1
        return tuple(self._encode(cut.chat))

    def tell(self) -> None:
        """Says in the log how many there were."""
        if self.num_shortened:
            logger.warning("%d prompts lost their oldest turns", self.num_shortened)
