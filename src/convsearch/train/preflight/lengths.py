"""Prompts and examples against their limits in tokens, counted with the model's own tokenizer."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.errors import CheckpointError, ConfigError, DataError
from convsearch.prompts.shortening import shortened
from convsearch.texts import read_json_object
from convsearch.train.device import Device
from convsearch.types import ChatMessage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

TEXTS_AT_ONCE = 1024


class TokenCounter:
    """Counts a chat's tokens as the trainer does: the chat template, then the tokenizer.

    with_answer: the chat ends in the answer to learn, instead of where the model's turn begins.
    """

    def __init__(self, model: Path, *, with_answer: bool) -> None:
        """Raises CheckpointError for a tokenizer that cannot be loaded or has no template."""
        self._tokenizer = load_tokenizer(model)
        self._with_answer = with_answer

    def count(self, chats: Sequence[list[ChatMessage]], where: str = "a chat") -> list[int]:
        """Tokens of each. Raises DataError for one that the template refuses, by its row."""
        from jinja2 import TemplateError

        texts = []
        for number, chat in enumerate(chats, 1):
            try:
                texts.append(
                    str(
                        self._tokenizer.apply_chat_template(
                            chat, add_generation_prompt=not self._with_answer, tokenize=False
                        )
                    )
                )
            except (TemplateError, TypeError) as error:
                roles = ", ".join(message["role"] for message in chat)
                raise DataError(
                    f"{where}: row {number}: the model's chat template refuses a chat of {roles} "
                    f"({error}); train a model whose template takes it, or make the file in "
                    "another form (data prompts --prompt nano has no system message)"
                ) from None
        counts: list[int] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            encoded = self._tokenizer(
                texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False
            )
            counts += map(len, encoded["input_ids"])  # pyright: ignore[reportArgumentType]
        return counts


def load_tokenizer(model: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in a model folder. Raises CheckpointError where there is none to use."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{model}: its tokenizer cannot be loaded ({reason}); copy the tokenizer files of the "
            "base model into it"
        ) from None
    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{model}: the tokenizer has no chat template; add chat_template.jinja to it"
        )
    return tokenizer


def fit(
    chats: Sequence[list[ChatMessage]],
    counter: TokenCounter,
    *,
    limit: int,
    flag: str,
    where: Path,
    what: str,
) -> list[list[ChatMessage] | None]:
    """The chats, by position, cut where they are longer than `limit` tokens: oldest turns first,
    the instruction never. None for one that is too long even without any earlier turn.

    flag, what: of the limit and of the rows, for people. What was cut is said in the log. Raises
    ConfigError where the limit leaves none of the rows, or no earlier turn in any of them.
    """
    lengths = counter.count(chats, str(where))
    fitted: list[list[ChatMessage] | None] = list(chats)
    too_long = [i for i, length in enumerate(lengths) if length > limit]
    num_bare = 0
    for i in too_long:
        cut = shortened(chats[i], lambda chat: counter.count([chat])[0] <= limit)
        fitted[i] = None if cut is None else cut.chat
        num_bare += cut is not None and not cut.num_left
    unusable = [i for i in too_long if fitted[i] is None]
    if len(unusable) + num_bare == len(chats):
        longest = max(range(len(chats)), key=lambda i: lengths[i])
        raise ConfigError(
            f"{where}: {flag} {limit} is too short for all {len(chats):,} {what}: none keeps an "
            f"earlier turn, {len(unusable):,} do not fit even without (the longest, row "
            f"{longest + 1}, has {lengths[longest]:,} tokens); raise {flag}"
        )
    num_cut = len(too_long) - len(unusable)
    if num_cut:
        logger.warning(
            "%s: %s of %s %s are longer than %s %d and lost their oldest turns (%s of them all "
            "earlier turns)",
            *(where, f"{num_cut:,}", f"{len(chats):,}", what, flag, limit, f"{num_bare:,}"),
        )
    if unusable:
        logger.warning(
            "%s: %s of %s %s are longer than %s %d even without earlier turns and are left out "
            "(the first is row %d)",
            *(where, f"{len(unusable):,}", f"{len(chats):,}", what, flag, limit, unusable[0] + 1),
        )
    return fitted


def context_of(model: Path) -> int | None:
    """Tokens that a model reads at most, as its config.json says; None where it does not, or where
    its positions are scaled."""
    path = model / "config.json"
    config: Mapping[str, object] = read_json_object(path)
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = text
    for name in ("rope_scaling", "rope_parameters"):
        scaling = config.get(name)
        if isinstance(scaling, Mapping) and scaling.get("factor"):
            return None
    limit = config.get("max_position_embeddings")
    return limit if isinstance(limit, int) and limit > 0 else None


def check_context(model: Path, prompt: int, response: int, device: Device) -> None:
    """Whether the model reads prompts and responses as long as allowed: on GPUs vLLM refuses the
    lengths, so this raises ConfigError; on a CPU the log says it, since none may be as long."""
    context = context_of(model)
    if context is None or prompt + response <= context:
        return
    sentence = (
        f"--max-prompt-length {prompt} and --max-response-length {response} are "
        f"{prompt + response} tokens together, and {model} reads at most {context} "
        "(max_position_embeddings of its config.json); lower one of them"
    )
    if device == "cuda":
        raise ConfigError(sentence)
    logger.warning("%s", sentence)
