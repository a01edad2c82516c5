"""Makes a nano policy: tokenizer, first weights, examples of copying, a folder with its card.

One policy is made for one search domain, in some ten minutes on two CPU cores. What it learns
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
from convsearch.files import read_turns
from convsearch.nano.card import write_card
from convsearch.nano.circuit import ROPE_THETA, TokenTraits, set_copying
from convsearch.nano.copying import CopyReport, measure_copying
from convsearch.nano.examples import (
    SpanSettings,
    WordStatistics,
    random_word_example,
    span_target,
)
from convsearch.nano.settings import NanoSettings
from convsearch.nano.tokenizer import (
    ASSISTANT,
    END,
    PAD,
    TAGS,
    USER,
    WORD_START,
    train_tokenizer,
)
from convsearch.passages import iter_passages
from convsearch.prompts import rewrite_messages
from convsearch.types import Turn

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


LIKE_LENGTHS = 12
"""Examples computed together."""


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
        turns = read_turns(existing("turns"), split="train")
        return cls(
            name=dataset.name,
            turns=turns,
            statistics=WordStatistics.of(passages, _messages(turns)),
            passage_sample=[p.contents for p in passages[:: max(1, len(passages) // 20_000)]],
        )


def _messages(turns: Sequence[Turn]) -> list[str]:
    """The newest answer before each question, and the question."""
    return [text for t in turns for text in (*(m.text for m in t.history[-1:]), t.question)]


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
    model = _new_model(settings, tokenizer, _traits(domains, tokenizer))
    vocabulary = _short_words(domains, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _lr_factor(s, settings.steps))
    model.train()
    for step in range(settings.steps):
        examples = [
            random_word_example(vocabulary, settings.spans, rng)
            if rng.random() < settings.random_share
            else _real_example(domains, settings.spans, rng)
            for _ in range(settings.batch_size)
        ]
        loss = _backward(model, tokenizer, examples)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if on_progress is not None:
            on_progress(step + 1, loss)
    unfinished = out.with_name(f".{out.name}.tmp")
    model.lm_head.weight.data *= settings.sharpness
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
    vocabulary = sorted({w for d in domains for w in d.statistics.passages})
    lengths = map(len, tokenizer(vocabulary, add_special_tokens=False)["input_ids"])
    return [w for w, length in zip(vocabulary, lengths, strict=True) if length <= 3]


def _traits(
    domains: Sequence[Domain], tokenizer: "PreTrainedTokenizerFast", most: int = 4000
) -> TokenTraits:
    """Rarity = standardised inverse document frequency in at most `most` evenly spaced passages or
    messages, whichever is lower; the lowest for marks, the mean for tokens inside words."""
    torch = _torch()
    samples = [list(d.passage_sample) for d in domains], [_messages(d.turns) for d in domains]
    idf = torch.full((len(tokenizer),), math.inf)
    for sample in map(list, map(itertools.chain.from_iterable, samples)):
        found = torch.zeros(len(tokenizer))
        sample = sample[:: max(1, len(sample) // most)]
        for ids in tokenizer(sample, add_special_tokens=False)["input_ids"]:
            found[list(set(ids))] += 1
        idf = torch.minimum(idf, torch.log(len(sample) / (found + 1)))
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = torch.tensor([token in (PAD, END, USER, ASSISTANT, *TAGS) for token in tokens])
    inside = torch.tensor([not token.startswith(WORD_START) for token in tokens]) & ~marks
    rarity = ((idf - idf.mean()) / idf.std()).clamp(-3, 3)
    rarity[inside] = 0
    rarity[marks] = -3
    vocabulary = tokenizer.get_vocab()
    return TokenTraits(
        rarity=rarity,
        inside_word=inside.float(),
        user=vocabulary[USER],
        assistant=vocabulary[ASSISTANT],
    )


def _new_model(
    settings: NanoSettings, tokenizer: "PreTrainedTokenizerFast", traits: TokenTraits
) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        head_dim=settings.head_size,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attention_bias=True,  # as in Qwen2: lets a head look at a position whatever stands there
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()[END],
        pad_token_id=tokenizer.get_vocab()[PAD],
    )
    model = LlamaForCausalLM(config)
    set_copying(model, traits, _torch().Generator().manual_seed(settings.seed))
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


def _backward(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    examples: Sequence[tuple[Turn, str]],
) -> float:
    """Adds the gradient of the mean cross-entropy of all response tokens, and returns that mean.

    Examples of like length are computed together: half of a mixed batch would be padding.
    """
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
    end = tokenizer.get_vocab()[END]
    pairs = [(p, [*r, end]) for p, r in zip(prompt_ids, response_ids, strict=True)]
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    scored = sum(len(response) for _, response in pairs)
    total = 0.0
    for start in range(0, len(pairs), LIKE_LENGTHS):
        part = pairs[start : start + LIKE_LENGTHS]
        loss = _loss_sum(model, part, tokenizer.get_vocab()[PAD]) / scored
        loss.backward()
        total += loss.item()
    return total


def _loss_sum(
    model: "LlamaForCausalLM", pairs: Sequence[tuple[list[int], list[int]]], pad: int
) -> "torch.Tensor":
    """Cross-entropy of all response tokens; the output layer runs on those positions alone."""
    torch = _torch()
    length = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = torch.full((len(pairs), length), pad)
    scored = torch.zeros((len(pairs), length), dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        whole = [*prompt, *response]
        ids[row, : len(whole)] = torch.tensor(whole)
        scored[row, len(prompt) : len(whole)] = True
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state  # right padding, causal
    logits = model.lm_head(hidden[scored[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][scored[:, 1:]], reduction="sum")
