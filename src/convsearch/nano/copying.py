"""How exactly a policy copies: the share of words of its rewrites that stand in the prompt."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.nano.examples import words
from convsearch.nano.settings import MAX_RESPONSE_TOKENS
from convsearch.prompts import parse_rewrite, rewrite_messages
from convsearch.types import Turn, derive_seed

TEMPERATURE = 0.7
"""The paper's, of training and inference."""


@dataclass(frozen=True, kw_only=True)
class CopyReport:
    """Sampled responses of a policy, checked word by word against their prompts."""

    num_responses: int
    num_malformed: int
    copied_share: float
    """Words of well-formed rewrites that occur, as whole words of any case, in their prompt."""
    mean_rewrite_words: float


def measure_copying(
    policy: Path,
    turns: Sequence[Turn],
    *,
    seed: int,
    num_turns: int = 400,
    max_tokens: int = MAX_RESPONSE_TOKENS,
) -> CopyReport:
    """Samples one response for each of `num_turns` turns drawn from `turns`, and checks its
    words."""
    from convsearch.infer.engine import SamplingParams
    from convsearch.infer.transformers_engine import TransformersEngine

    drawn = random.Random(seed).sample(list(turns), min(num_turns, len(turns)))
    chats = [rewrite_messages(turn, "nano") for turn in drawn]
    engine = TransformersEngine(str(policy))
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=max_tokens)
    responses = []
    for start in range(0, len(chats), 64):
        part = slice(start, start + 64)
        seeds = [derive_seed(seed, turn.qid) for turn in drawn[part]]
        responses += engine.generate(chats[part], params, seeds)
    engine.close()
    copied = total = malformed = 0
    for chat, response in zip(chats, responses, strict=True):
        parsed = parse_rewrite(response.text)
        if parsed is None:
            malformed += 1
            continue
        found, of = count_copied(chat[-1]["content"], parsed.rewrite)
        copied, total = copied + found, total + of
    return CopyReport(
        num_responses=len(chats),
        num_malformed=malformed,
        copied_share=copied / max(1, total),
        mean_rewrite_words=total / max(1, len(chats) - malformed),
    )


def count_copied(prompt: str, rewrite: str) -> tuple[int, int]:
    """(words of `rewrite` that are also words of `prompt` in any case, words of `rewrite`)."""
    known = {w.lower() for w in words(prompt)}
    rewritten = [w.lower() for w in words(rewrite)]
    return sum(w in known for w in rewritten), len(rewritten)
