"""Makes a nano policy: tokenizer, first weights, examples of copying, a folder with its card.

One policy is made for one search domain, in some ten minutes on two CPU cores. What it learns
before any reinforcement is to copy words of the conversation exactly into the tagged format.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.errors import ConfigError
from convsearch.files import read_turns, writing
from convsearch.nano.card import write_card
from convsearch.nano.circuit import TokenTraits
from convsearch.nano.copying import CopyReport, measure_copying
from convsearch.nano.examples import (
    SpanSettings,
    WordStatistics,
    random_word_example,
    span_target,
)
from convsearch.nano.first_model import (
    inverse_document_frequency,
    new_model,
    require_torch,
    token_traits,
)
from convsearch.nano.learning import Sample, backward, lr_factor
from convsearch.nano.settings import MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, NanoSettings
from convsearch.nano.tokenizer import END, PAD, TAGS, train_tokenizer
from convsearch.passages import iter_passages
from convsearch.prompts import rewrite_messages
from convsearch.prompts.asking import asking_of, write_asking
from convsearch.types import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


LIKE_LENGTHS = 12
"""Examples computed together."""
MOST_WARM_UP = 150
"""Steps of warm-up, at most."""


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
    torch = require_torch()
    started = time.monotonic()
    if not domains:
        raise ConfigError("no data set given; name at least one with --dataset")
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(_texts(domains), settings.vocab_size)
    model = new_model(settings, tokenizer, _traits(domains, tokenizer), begins=True)
    vocabulary = _short_words(domains, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, settings.steps, MOST_WARM_UP)
    )
    pad = tokenizer.get_vocab()[PAD]
    model.train()
    for step in range(settings.steps):
        examples = [
            random_word_example(vocabulary, settings.spans, rng)
            if rng.random() < settings.random_share
            else _real_example(domains, settings.spans, rng)
            for _ in range(settings.batch_size)
        ]
        batch = [_sample(tokenizer, turn, response) for turn, response in examples]
        loss = backward(model, batch, pad, LIKE_LENGTHS)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if on_progress is not None:
            on_progress(step + 1, loss)
    unfinished = out.with_name(f".{out.name}.tmp")
    model.lm_head.weight.data *= settings.sharpness
    model.bfloat16()
    with writing(unfinished):
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    turns = [turn for domain in domains for turn in domain.turns]
    report = measure_copying(unfinished, turns, seed=settings.seed)
    asking = asking_of(
        "nano",
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        max_response_tokens=MAX_RESPONSE_TOKENS,
        stage="nano",
        dataset=", ".join(domain.name for domain in domains),
    )
    write_asking(unfinished, asking)
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
    """By the inverse document frequency in at most `most` evenly spaced passages or messages,
    whichever is lower."""
    kinds = [list(d.passage_sample) for d in domains], [_messages(d.turns) for d in domains]
    samples = [list(itertools.chain.from_iterable(kind)) for kind in kinds]
    of_passages, of_messages = (
        inverse_document_frequency(tokenizer, sample[:: max(1, len(sample) // most)])
        for sample in samples
    )
    return token_traits(tokenizer, of_passages.minimum(of_messages), TAGS)


def _real_example(
    domains: Sequence[Domain], spans: SpanSettings, rng: random.Random
) -> tuple[Turn, str]:
    domain = rng.choice(domains)
    turn = rng.choice(domain.turns)
    return turn, span_target(turn, domain.statistics, spans, rng)


def _sample(tokenizer: "PreTrainedTokenizerFast", turn: Turn, response: str) -> Sample:
    prompt = str(
        tokenizer.apply_chat_template(
            rewrite_messages(turn, "nano"), tokenize=False, add_generation_prompt=True
        )
    )
    before = tokenizer.encode(prompt, add_special_tokens=False)
    learnt = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.get_vocab()[END]]
    return [*before, *learnt], [False] * len(before) + [True] * len(learnt)
