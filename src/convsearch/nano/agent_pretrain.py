"""Makes a nano search agent: tokenizer, copying first weights, episodes of a rule-based player.

The policy is taught on worlds of other seeds than the one it will be asked about. What it learns
before any reinforcement is the form, to search with the names and words of the question, to copy
the next name out of the results, and the answer.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import ExtractiveSqueezer
from convsearch.errors import ConfigError
from convsearch.files import atomic_write, writing
from convsearch.nano.agent_teacher import World, episodes_forever, make_world
from convsearch.nano.first_model import (
    inverse_document_frequency,
    new_model,
    require_torch,
    token_traits,
)
from convsearch.nano.learning import Sample, backward, lr_factor, measure
from convsearch.nano.tokenizer import AGENT_TAGS, ASSISTANT, END, PAD, USER, train_tokenizer
from convsearch.retrieval import Retriever
from convsearch.types import ChatMessage, Passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LIKE_LENGTHS = 16
"""Episodes computed together."""
MOST_WARM_UP = 100
"""Steps of warm-up, at most."""
HELD_OUT = 64
"""Episodes of one more world, which the report is about."""
OpenEngine = Callable[[Sequence[Passage]], Retriever]


@dataclass(frozen=True, kw_only=True)
class AgentTeaching:
    """Shape of the policy, and how it is taught."""

    worlds: int = 40
    """Worlds that episodes are played in. With few, the tokenizer holds their names whole and cuts
    those of any other world into pieces that were hardly learnt."""
    first_world: int = 1001
    """Seed of the first of them; none may be the one that is asked about later."""
    episodes: int = 19_200
    """Right episodes to learn from: each is shown once in the default number of steps."""
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
    steps: int = 1200
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
        if self.worlds < 1:
            raise ConfigError(f"{self.worlds} worlds to play in; at least one is needed")

    @property
    def world_seeds(self) -> range:
        """The seeds of all worlds."""
        return range(self.first_world, self.first_world + self.worlds)


@dataclass(frozen=True, kw_only=True)
class TeachReport:
    """What came of it."""

    parameters: int
    held_out_loss: float
    """Cross-entropy a token of episodes in a world that was not learnt from."""
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
    torch = require_torch()
    started = time.monotonic()
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    worlds = [make_world(seed) for seed in settings.world_seeds]
    tokenizer = train_tokenizer(_texts(worlds), settings.vocab_size, AGENT_TAGS, single_digits=True)
    learnt = _played(worlds, settings.episodes, settings, tokenizer, open_engine, rng, on_progress)
    unseen = [make_world(settings.world_seeds.stop)]
    held_out = _played(unseen, HELD_OUT, settings, tokenizer, open_engine, rng, None)
    told = [passage.text for world in worlds for passage in world.passages]
    traits = token_traits(tokenizer, inverse_document_frequency(tokenizer, told), AGENT_TAGS)
    model = new_model(settings, tokenizer, traits, begins=False)
    model.lm_head.weight.data *= settings.softness
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, settings.steps, MOST_WARM_UP)
    )
    pad = tokenizer.get_vocab()[PAD]
    model.train()
    order: list[int] = []
    for number in range(settings.steps):
        if len(order) < settings.batch_size:
            order = rng.sample(range(len(learnt)), len(learnt))
        batch = [learnt[order.pop()] for _ in range(settings.batch_size)]
        backward(model, batch, pad, LIKE_LENGTHS)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if on_progress is not None:
            on_progress("teaching", number + 1, settings.steps)
    loss, accuracy = measure(model, held_out, pad, LIKE_LENGTHS)
    report = TeachReport(
        parameters=sum(p.numel() for p in model.parameters()),
        held_out_loss=loss,
        held_out_accuracy=accuracy,
        minutes=(time.monotonic() - started) / 60,
    )
    unfinished = out.with_name(f".{out.name}.tmp")
    with writing(unfinished):
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    _write_card(unfinished, settings, report, command)
    unfinished.rename(out)
    return report


def encode(chat: Sequence[ChatMessage], tokenizer: "PreTrainedTokenizerFast") -> Sample:
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


def _texts(worlds: Sequence[World]) -> list[str]:
    told = [f"{p.title} {p.text}" for world in worlds for p in world.passages]
    return told + [lesson.question.question for world in worlds for lesson in world.lessons]


def _played(
    worlds: Sequence[World],
    count: int,
    settings: AgentTeaching,
    tokenizer: "PreTrainedTokenizerFast",
    open_engine: OpenEngine,
    rng: random.Random,
    on_progress: Callable[[str, int, int], None] | None,
) -> list[Sample]:
    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    search = SearchSettings(topk=settings.topk, max_result_tokens=settings.max_result_tokens)
    tools = [
        SearchTool(
            open_engine(world.passages),
            search,
            squeezer=ExtractiveSqueezer(tokens),
            count_tokens=tokens,
        )
        for world in worlds
    ]
    endless = episodes_forever(worlds, tools, variants=settings.variants, rng=rng)
    played = []
    for chat in itertools.islice(endless, count):
        played.append(encode(chat, tokenizer))
        if on_progress is not None:
            on_progress("playing", len(played), count)
    return played


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

1. Tokenizer: byte-level BPE, {vocab_size} entries, lower case, single digits, trained on the worlds
   below.
2. First weights: heads that go on with a copy, set by hand (`convsearch.nano.circuit`).
3. {steps} steps of {batch_size} episodes, out of {episodes} right ones that a rule-based player
   (`convsearch.nano.agent_teacher`) played in the worlds of the seeds {first} to {last}. No
   question and no passage of any other world was used.

Episodes in a world that was not learnt from: cross-entropy {loss:.3f} a token,
{accuracy:.1%} of the tokens most likely. {minutes:.0f} minutes.
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
        first=settings.world_seeds[0],
        last=settings.world_seeds[-1],
        loss=report.held_out_loss,
        accuracy=report.held_out_accuracy,
        minutes=report.minutes,
    )
    with atomic_write(out / "README.md") as card:
        card.write(text)
