"""Reads prompts as a model will, before it is given them: by its chat template and tokenizer."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convsearch.agent.frames import encode_chat
from convsearch.errors import CheckpointError, DependencyError, PromptError, install_command
from convsearch.infer.checkpoint import check_model
from convsearch.infer.hub_models import find_model
from convsearch.infer.room import Room
from convsearch.types import ChatMessage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LIMIT = 1 << 30
"""Tokens that a model reads which names no limit."""


class PromptReader:
    """What a model makes of a chat. Safe for threads."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", context: int) -> None:
        """context: most tokens that the model reads, prompt and response together."""
        self._context = context
        self._room = Room(context, lambda chat: encode_chat(tokenizer, chat))
        self._lock = threading.Lock()

    def ids(self, chat: Sequence[ChatMessage], max_tokens: int = 0) -> tuple[int, ...]:
        """The prompt, up to where the model's turn begins; a conversation that leaves no room for
        an answer of max_tokens loses its oldest turns. Raises PromptError."""
        with self._lock:
            ids = self._room.ids(list(chat), max_tokens)
        if not ids:
            raise PromptError("the chat template makes no token of it; say something")
        return ids

    def close(self) -> None:
        """Says in the log how many conversations were too long."""
        self._room.tell()

    def too_long(self, num_tokens: int) -> str | None:
        """Why a prompt of so many tokens gets no response; None where there is room for one."""
        if num_tokens < self._context:
            return None
        return f"the prompt has {num_tokens} tokens and the model reads at most {self._context}"


def read_prompts(
    reader: PromptReader, chats: Sequence[Sequence[ChatMessage]], max_tokens: int
) -> tuple[list[tuple[int, ...]], dict[int, str]]:
    """The ids of each chat, and by position why it gets no response. A chat that cannot be read has
    no ids. Raises PromptError where none can be read: model and prompt style do not go together."""
    prompts: list[tuple[int, ...]] = []
    errors: dict[int, str] = {}
    refused: list[PromptError] = []
    for i, chat in enumerate(chats):
        try:
            ids = reader.ids(chat, max_tokens)
        except PromptError as error:
            refused.append(error)
            ids, errors[i] = (), str(error)
        else:
            if why := reader.too_long(len(ids)):
                errors[i] = why
        prompts.append(ids)
    if refused and len(refused) == len(chats):
        raise refused[0]
    return prompts, errors


def load_prompt_reader(model: str) -> PromptReader:
    """Of a checkpoint folder or a hub name, without loading its weights. For engines in other
    processes. Raises CheckpointError, DependencyError."""
    check_model(model)
    try:
        import transformers
    except ImportError as error:
        raise DependencyError(
            f"transformers is not installed; run {install_command('infer')}"
        ) from error
    try:
        source = find_model(model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{model}: its tokenizer cannot be loaded ({reason}); name a whole Hugging Face "
            "checkpoint"
        ) from error
    return PromptReader(tokenizer, getattr(config, "max_position_embeddings", None) or NO_LIMIT)
