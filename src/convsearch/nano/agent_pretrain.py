"""Makes a nano search agent: tokenizer, copying first weights, episodes of a rule-based player.

The policy is taught on worlds of other seeds than the one it will be asked about. What it learns
before any reinforcement is the form, to search with the names and words of the question, to copy
the next name out of the results, and the answer.
"""

import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import ExtractiveSqueezer
from convsearch.errors import ConfigError, DependencyError
from convsearch.files import atomic_write
from convsearch.nano.agent_teacher import World, episodes_forever, make_world
from convsearch.nano.circuit import ROPE_THETA, TokenTraits, set_copying
from convsearch.nano.tokenizer import (
    AGENT_TAGS,
    ASSISTANT,
    END,
    PAD,
    USER,
    WORD_START,
    train_tokenizer,
)
from convsearch.retrieval import Retriever
from convsearch.types import ChatMessage, Passage

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

LIKE_LENGTHS = 16
"""Episodes computed together."""
Pair = tuple[list[int], list[bool]]
"""Ids of an episode, and which of them the model wrote."""
OpenEngine = Callable[[Sequence[Passage]], Retriever]


@dataclass(frozen=True, kw_only=True)
class AgentTeaching:
    """Shape of the policy, and how it is taught."""

    world_seeds: tuple[int, ...] = (1001, 1002, 1003, 1004, 1005)
    """Worlds that episodes are played in; none may be the one that is asked about later."""
    episodes: int = 6000
    """Right episodes to learn from."""
    variants: int = 3
    """Queries that the player writes in a call; the machine searches all in half of the episodes
    and the first one alone in the other half."""
    topk: int = 1
    """Passages of each query."""
    max_result_tokens: int = 96
    """Longest text that one call brings into the context."""
    vocab_size: int = 4096
    hidden_size: int = 168
    num_heads: int = 3
    head_size: int = 80
    num_layers: int = 3
    intermediate_size: int = 504
    steps: int = 900
    """Optimiser steps."""
    batch_size: int = 16
    """Episodes a step."""
    lr: float = 4e-3
    """Peak learning rate of AdamW: linear warm-up over a tenth, at most 100 steps, then cosine to a
    twentieth."""
    softness: float = 0.3
    """The output layer is multiplied by this before the first step: the set heads are surer of
    themselves than a policy can be that has not learnt when to use them."""
    seed: int = 0
    """Seeds weights, episodes and order."""

    def __post_init__(self) -> None:
        if not self.world_seeds:
            raise ConfigError("no world to play in; name at least one seed")


@dataclass(frozen=True, kw_only=True)
class TeachReport:
    """What came of it."""

    parameters: int
    held_out_loss: float
    """Cross-entropy a token of episodes that were not learnt from."""
    held_out_accuracy: float
    """Share of their tokens that the policy finds most likely."""
    minutes: float


def teach_agent(
    out: Path,
    settings: AgentTeaching,
    open_engine: OpenEngine,
    *,
    command: str,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> TeachReport:
    """Trains tokenizer and policy and writes the folder `out`, whole.

    open_engine: a search engine over the passages of one world. command: what the card names as the
    way to make it. on_progress gets (what is done, how much of it, of how much).
    """
    torch = _torch()
    started = time.monotonic()
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    worlds = [make_world(seed) for seed in settings.world_seeds]
    tokenizer = train_tokenizer(_texts(worlds), settings.vocab_size, AGENT_TAGS)
    played = _played(worlds, settings, tokenizer, open_engine, rng, on_progress)
    model = _new_model(settings, tokenizer, worlds)
    held_out, learnt = played[: settings.batch_size * 4], played[settings.batch_size * 4 :]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _lr_factor(s, settings.steps))
    pad = tokenizer.get_vocab()[PAD]
    model.train()
    order: list[int] = []
    for number in range(settings.steps):
        if len(order) < settings.batch_size:
            order = rng.sample(range(len(learnt)), len(learnt))
        batch = [learnt[order.pop()] for _ in range(settings.batch_size)]
        _backward(model, batch, pad)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if on_progress is not None:
            on_progress("teaching", number + 1, settings.steps)
    loss, accuracy = _measure(model, held_out, pad)
    report = TeachReport(
        parameters=sum(p.numel() for p in model.parameters()),
        held_out_loss=loss,
        held_out_accuracy=accuracy,
        minutes=(time.monotonic() - started) / 60,
    )
    unfinished = out.with_name(f".{out.name}.tmp")
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    _write_card(unfinished, settings, report, command)
    unfinished.rename(out)
    return report


def encode(chat: Sequence[ChatMessage], tokenizer: "PreTrainedTokenizerFast") -> Pair:
    """An episode as ids, the marks of its turns among them, and which of them the model wrote."""
    vocabulary = tokenizer.get_vocab()
    ids: list[int] = []
    own: list[bool] = []
    for message in chat:
        said = tokenizer(message["content"], add_special_tokens=False)["input_ids"]
        assert isinstance(said, list)
        if message["role"] == "assistant":
            ids += [vocabulary[ASSISTANT], *said, vocabulary[END]]
            own += [False, *(True for _ in said), True]
        else:
            ids += [vocabulary[USER], *said]
            own += [False, *(False for _ in said)]
    return ids, own


def _torch():
    try:
        import torch
    except ImportError as error:
        raise DependencyError(
            "torch is not installed; run pip install 'convsearch[infer]'"
        ) from error
    return torch


def _texts(worlds: Sequence[World]) -> list[str]:
    told = [f"{p.title} {p.text}" for world in worlds for p in world.passages]
    return told + [lesson.question.question for world in worlds for lesson in world.lessons]


def _played(
    worlds: Sequence[World],
    settings: AgentTeaching,
    tokenizer: "PreTrainedTokenizerFast",
    open_engine: OpenEngine,
    rng: random.Random,
    on_progress: Callable[[str, int, int], None] | None,
) -> list[Pair]:
    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    search = SearchSettings(topk=settings.topk, max_result_tokens=settings.max_result_tokens)
    tools = [
        SearchTool(
            open_engine(world.passages),
            search,
            squeezer=ExtractiveSqueezer(count),
            count_tokens=count,
        )
        for world in worlds
    ]
    endless = episodes_forever(worlds, tools, variants=settings.variants, rng=rng)
    played = []
    for chat in itertools.islice(endless, settings.episodes):
        played.append(encode(chat, tokenizer))
        if on_progress is not None:
            on_progress("playing", len(played), settings.episodes)
    return played


def _new_model(
    settings: AgentTeaching, tokenizer: "PreTrainedTokenizerFast", worlds: Sequence[World]
) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = tokenizer.get_vocab()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.num_layers,
            num_attention_heads=settings.num_heads,
            num_key_value_heads=settings.num_heads,
            head_dim=settings.head_size,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            attention_bias=True,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=vocabulary[END],
            pad_token_id=vocabulary[PAD],
        )
    )
    generator = _torch().Generator().manual_seed(settings.seed)
    set_copying(model, _traits(tokenizer, worlds), generator, begins=False)
    model.lm_head.weight.data *= settings.softness
    return model


def _traits(tokenizer: "PreTrainedTokenizerFast", worlds: Sequence[World]) -> TokenTraits:
    """Rarity = standardised inverse document frequency over the passages."""
    torch = _torch()
    texts = [p.text for world in worlds for p in world.passages]
    found = torch.zeros(len(tokenizer))
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert isinstance(encoded, list)
    for ids in encoded:
        found[list(set(ids))] += 1
    idf = torch.log(len(texts) / (found + 1))
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = torch.tensor([token in (PAD, END, USER, ASSISTANT, *AGENT_TAGS) for token in tokens])
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


def _lr_factor(step: int, steps: int) -> float:
    warm_up = min(100, max(1, steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _backward(model: "LlamaForCausalLM", batch: Sequence[Pair], pad: int) -> None:
    """Adds the gradient of the mean cross-entropy of all tokens that the model wrote.

    Episodes of like length are computed together: half of a mixed batch would be padding.
    """
    scored = sum(sum(own) for _, own in batch)
    ordered = sorted(batch, key=lambda pair: len(pair[0]))
    for start in range(0, len(ordered), LIKE_LENGTHS):
        loss, _ = _loss_sum(model, ordered[start : start + LIKE_LENGTHS], pad)
        (loss / scored).backward()


def _measure(model: "LlamaForCausalLM", played: Sequence[Pair], pad: int) -> tuple[float, float]:
    """(mean cross-entropy, share of tokens found most likely) over the model's own tokens."""
    torch = _torch()
    scored = sum(sum(own) for _, own in played)
    loss = right = 0.0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(played), LIKE_LENGTHS):
            part, hits = _loss_sum(model, played[start : start + LIKE_LENGTHS], pad)
            loss, right = loss + part.item(), right + hits
    return loss / max(1, scored), right / max(1, scored)


def _loss_sum(
    model: "LlamaForCausalLM", part: Sequence[Pair], pad: int
) -> "tuple[torch.Tensor, int]":
    """Cross-entropy of the model's own tokens, summed, and how many of them it finds most likely;
    the output layer runs on those positions alone."""
    torch = _torch()
    length = max(len(ids) for ids, _ in part)
    ids_BT = torch.full((len(part), length), pad)
    own_BT = torch.zeros((len(part), length), dtype=torch.bool)
    for row, (ids, own) in enumerate(part):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        own_BT[row, : len(ids)] = torch.tensor(own)
    hidden = model.model(input_ids=ids_BT[:, :-1]).last_hidden_state  # right padding, causal
    logits = model.lm_head(hidden[own_BT[:, 1:]])
    wanted = ids_BT[:, 1:][own_BT[:, 1:]]
    loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
    return loss, int((logits.argmax(-1) == wanted).sum())


_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---
# Nano search agent

A language model of {parameters:.1f} million parameters (Llama shape with attention biases) that
plays the form `nano`: it searches an encyclopaedia of made-up names in up to {variants} queries a
call, reads, and answers. It is the start of reinforcement learning, not a finished agent.

Command: `{command}`

1. Tokenizer: byte-level BPE, {vocab_size} entries, lower case, trained on the worlds below.
2. First weights: heads that go on with a copy, set by hand (`convsearch.nano.circuit`).
3. {steps} steps of {batch_size} episodes, out of {episodes} right ones that a rule-based player
   (`convsearch.nano.agent_teacher`) played in the worlds of the seeds {seeds}. No question and no
   passage of any other world was used.

Episodes that were not learnt from: cross-entropy {loss:.3f} a token, {accuracy:.1%} of the tokens
most likely. {minutes:.0f} minutes.
"""


def _write_card(out: Path, settings: AgentTeaching, report: TeachReport, command: str) -> None:
    text = _CARD.format(
        parameters=report.parameters / 1e6,
        variants=settings.variants,
        command=command,
        vocab_size=settings.vocab_size,
        steps=settings.steps,
        batch_size=settings.batch_size,
        episodes=settings.episodes,
        seeds=", ".join(map(str, settings.world_seeds)),
        loss=report.held_out_loss,
        accuracy=report.held_out_accuracy,
        minutes=report.minutes,
    )
    with atomic_write(out / "README.md") as card:
        card.write(text)
