"""Makes a nano policy: tokenizer, curriculum of copying, and a Hugging Face folder with its card.

One policy is made for one search domain, in less than an hour on two CPU cores. What it learns
before any reinforcement is to copy words of the conversation exactly into the tagged format.
"""

import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.errors import ConfigError, DependencyError
from convsearch.files import iter_passages, read_turns
from convsearch.nano.card import write_card
from convsearch.nano.copying import CopyReport, measure_copying
from convsearch.nano.examples import (
    SpanSettings,
    WordStatistics,
    random_word_example,
    span_target,
)
from convsearch.nano.settings import NanoSettings
from convsearch.nano.tokenizer import END, PAD, train_tokenizer
from convsearch.prompts import rewrite_messages
from convsearch.types import Turn

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a policy is made from: turns without their gold, and word statistics of the corpus."""

    name: str
    turns: Sequence[Turn]
    statistics: WordStatistics
    passage_sample: Sequence[str]

    @classmethod
    def load(cls, dataset: Path) -> "Domain":
        """Reads the train split and the corpus of a data set folder; relevance is never opened."""

        def existing(stem: str) -> Path:
            zipped = dataset / f"{stem}.jsonl.gz"
            return zipped if zipped.is_file() else dataset / f"{stem}.jsonl"

        passages = list(iter_passages(existing("corpus")))
        return cls(
            name=dataset.name,
            turns=read_turns(existing("turns"), split="train"),
            statistics=WordStatistics.of(passages),
            passage_sample=[p.contents for p in passages[:: max(1, len(passages) // 20_000)]],
        )


def build_nano(
    domains: Sequence[Domain],
    out: Path,
    settings: NanoSettings,
    *,
    command: str,
    on_progress: Callable[[int, float], None] | None = None,
) -> CopyReport:
    """Trains tokenizer and policy on all `domains` together and writes the folder `out`, whole.

    command: what the card names as the way to make it. on_progress gets (step, loss). Returns the
    copying report on the domains' own train turns. Raises ConfigError without any domain.
    """
    torch = _torch()
    started = time.monotonic()
    if not domains:
        raise ConfigError("no data set given; name at least one with --dataset")
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(_texts(domains), settings.vocab_size)
    model = _new_model(settings, tokenizer)
    vocabulary = _short_words(domains, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _lr_factor(s, settings.steps))
    copy_steps = int(settings.steps * settings.copy_share)
    model.train()
    for step in range(settings.steps):
        if step < copy_steps:
            share, longest = 1.0, 6 + int(42 * (step / copy_steps) ** 2)
        else:
            share, longest = settings.copy_rest, 48
        examples = [
            random_word_example(vocabulary, settings.spans, rng, max_words=longest)
            if rng.random() < share
            else _real_example(domains, settings.spans, rng)
            for _ in range(settings.batch_size)
        ]
        loss = _loss(model, tokenizer, examples)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if on_progress is not None:
            on_progress(step + 1, loss.item())
    unfinished = out.with_name(f".{out.name}.tmp")
    model.bfloat16()
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    turns = [turn for domain in domains for turn in domain.turns]
    report = measure_copying(unfinished, turns, seed=settings.seed)
    write_card(
        unfinished,
        domains=[domain.name for domain in domains],
        settings=settings,
        report=report,
        num_parameters=sum(p.numel() for p in model.parameters()),
        command=command,
        minutes=(time.monotonic() - started) / 60,
        threads=torch.get_num_threads(),
    )
    unfinished.rename(out)
    return report


def _torch():
    try:
        import torch
    except ImportError as error:
        raise DependencyError(
            "torch is not installed; run pip install 'convsearch[infer]'"
        ) from error
    return torch


def _texts(domains: Sequence[Domain]) -> itertools.chain[str]:
    return itertools.chain.from_iterable(
        [
            *d.passage_sample,
            *(f"Q: {t.question}" for t in d.turns),
            *(t.history_query for t in d.turns),
        ]
        for d in domains
    )


def _short_words(domains: Sequence[Domain], tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """Words of the corpora of at most three tokens: random conversations of them stay short."""
    vocabulary = sorted({w for d in domains for w in d.statistics.document_frequency})
    lengths = map(len, tokenizer(vocabulary, add_special_tokens=False)["input_ids"])
    return [w for w, length in zip(vocabulary, lengths, strict=True) if length <= 3]


def _new_model(settings: NanoSettings, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = settings.hidden_size // 32
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        attention_bias=True,  # as in Qwen2: lets a head look at a position whatever stands there
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()[END],
        pad_token_id=tokenizer.get_vocab()[PAD],
    )
    model = LlamaForCausalLM(config)
    # Copying a token means writing what was read: start with output vectors equal to the inputs.
    model.lm_head.weight.data.copy_(model.model.embed_tokens.weight.data)
    return model


def _lr_factor(step: int, steps: int) -> float:
    warm_up = min(150, max(1, steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _real_example(
    domains: Sequence[Domain], spans: SpanSettings, rng: random.Random
) -> tuple[Turn, str]:
    domain = rng.choice(domains)
    turn = rng.choice(domain.turns)
    return turn, span_target(turn, domain.statistics, spans, rng)


def _loss(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    examples: Sequence[tuple[Turn, str]],
) -> "torch.Tensor":
    """Mean cross-entropy of the response tokens; the output layer runs on those positions alone."""
    torch = _torch()
    prompts = [
        str(
            tokenizer.apply_chat_template(
                rewrite_messages(turn, "nano"), tokenize=False, add_generation_prompt=True
            )
        )
        for turn, _ in examples
    ]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    response_ids = tokenizer([r for _, r in examples], add_special_tokens=False)["input_ids"]
    length = max(len(p) + len(r) + 1 for p, r in zip(prompt_ids, response_ids, strict=True))
    vocabulary = tokenizer.get_vocab()
    ids = torch.full((len(examples), length), vocabulary[PAD])
    scored = torch.zeros((len(examples), length), dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        whole = [*prompt, *response, vocabulary[END]]
        ids[row, : len(whole)] = torch.tensor(whole)
        scored[row, len(prompt) : len(whole)] = True
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state  # right padding, causal
    logits = model.lm_head(hidden[scored[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][scored[:, 1:]])
