"""A file of prompts with none of them too long."""

from pathlib import Path

from convsearch.train.checkpoint import require_model
from convsearch.train.preflight.chats import PROMPT_FORM, prompt_chat
from convsearch.train.preflight.lengths import TokenCounter, fit
from convsearch.train.preflight.prepared import read_rows, write_rows


def shorten_prompts(source: Path, target: Path, model: Path, max_tokens: int) -> int:
    """Moves a file of prompts to `target`, each with at most max_tokens tokens of the model, cut as
    `lengths.fit` says; returns how many prompts are left. Raises as it does, and moves nothing."""
    rows = read_rows(source, "prompt", prompt_chat, PROMPT_FORM)
    fitted = fit(
        rows.chats,
        TokenCounter(require_model(model), with_answer=False),
        limit=max_tokens,
        flag="--max-prompt-length",
        where=target,
        what="prompts",
    )
    if write_rows(rows, fitted, target) == source:
        source.replace(target)
    return sum(chat is not None for chat in fitted)
