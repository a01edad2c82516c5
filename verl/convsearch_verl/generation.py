"""Sampling from a causal language model on processors, many roll-outs of few prompts at a time.

GRPO asks for n roll-outs of each prompt. All n share one row: the prompt is run once, and every
decoding step adds n tokens to the row, one for each roll-out, under a mask that shows each roll-out
the prompt and its own tokens only. The cache holds each prompt once, and the step is a matrix
product over n queries instead of n vector products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MASKED = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One roll-out to sample."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    """At least 1."""
    temperature: float
    """0 takes the most likely token."""


@dataclass(kw_only=True)
class Sampled:
    """The tokens of one roll-out, the end-of-text token included, and their log-probabilities under
    the distribution they were drawn from (temperature applied)."""

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What of the model's output layer is text."""

    size: int
    """Tokens from here on are unknown to the tokenizer and never drawn."""
    eos_ids: tuple[int, ...]
    pad_id: int
    ignore_eos: bool = False


@torch.inference_mode()
def sample_batch(
    model: "PreTrainedModel",
    requests: Sequence[Request],
    vocabulary: Vocabulary,
    generator: torch.Generator,
) -> list[Sampled]:
    """Samples all requests; entry i of the result belongs to request i.

    The draws depend on the set of requests and on the generator, not on the order of the requests
    beyond which of several equal requests gets which of their results.
    model: a transformers causal language model with full attention ("sdpa").
    """
    order = sorted(
        range(len(requests)), key=lambda i: (requests[i].prompt_ids, requests[i].max_tokens)
    )
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in order:
        groups.setdefault(requests[i].prompt_ids, []).append(i)
    results = [Sampled() for _ in requests]
    rows = _Rows(model, list(groups.items()), requests, vocabulary)
    while rows.open.any():
        rows.step(results, generator)
    return results


class _Rows:
    """The state of one batch. P prompts (rows) by n slots; a slot is one roll-out or empty."""

    def __init__(
        self,
        model: "PreTrainedModel",
        groups: list[tuple[tuple[int, ...], list[int]]],
        requests: Sequence[Request],
        vocabulary: Vocabulary,
    ) -> None:
        from transformers.cache_utils import Cache

        from convsearch_verl.roomy_cache import RoomyLayer

        self.model = model
        self.vocabulary = vocabulary
        self.eos = torch.tensor(vocabulary.eos_ids)
        self.slots = max(len(members) for _, members in groups)
        shape = (len(groups), self.slots)
        self.owner = torch.full(shape, -1)
        self.limit = torch.zeros(shape, dtype=torch.long)
        self.temperature = torch.zeros(shape)
        for row, (_, members) in enumerate(groups):
            for slot, i in enumerate(members):
                self.owner[row, slot] = i
                self.limit[row, slot] = requests[i].max_tokens
                self.temperature[row, slot] = requests[i].temperature
        self.open = self.owner >= 0
        self.count = 0
        self.cache = Cache(layer_class_to_replicate=RoomyLayer)
        self.logits = self._prefill([prompt for prompt, _ in groups])

    def _prefill(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        """Runs each prompt once. Returns the next token's logits, (P, n, vocabulary)."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.vocabulary.pad_id)
        self.visible = torch.zeros((len(prompts), width), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            self.visible[row, width - len(prompt) :] = True
        self.length = self.visible.sum(-1)
        position = (self.visible.long().cumsum(-1) - 1).clamp(min=0)
        out = self.model(
            input_ids=ids,
            attention_mask=self.visible.long(),
            position_ids=position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits.float().expand(-1, self.slots, -1)

    def step(self, results: list[Sampled], generator: torch.Generator) -> None:
        """Draws one token for every open slot, closes those that end, and runs the model on."""
        token, log_prob = self._draw(generator)
        self.count += 1
        ended = self.count >= self.limit
        if not self.vocabulary.ignore_eos:
            ended |= torch.isin(token, self.eos)
        for owner, one, value in zip(
            self.owner[self.open].tolist(),
            token[self.open].tolist(),
            log_prob[self.open].tolist(),
            strict=True,
        ):
            results[owner].token_ids.append(one)
            results[owner].log_probs.append(value)
        self.open = self.open & ~ended
        alive = self.open.any(-1)
        if not alive.any():
            return
        token = self._drop_rows(alive, token)
        self.logits = self._forward(token)

    def _draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One token a slot by inverting the cumulative distribution, and its log-probability."""
        logits = self.logits.clone()
        logits[..., self.vocabulary.size :] = MASKED
        greedy = self.temperature == 0
        scaled = logits / torch.where(greedy, 1.0, self.temperature)[..., None]
        log_probs = torch.log_softmax(scaled, -1)
        cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
        level = torch.rand(greedy.shape, generator=generator, dtype=torch.float64)
        level = (level * cumulative[..., -1])[..., None]
        token = torch.searchsorted(cumulative, level, right=True)[..., 0]
        token = token.clamp(max=self.vocabulary.size - 1)
        token = torch.where(greedy, logits.argmax(-1), token)
        return token, log_probs.gather(-1, token[..., None])[..., 0]

    def _drop_rows(self, alive: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Leaves out the rows whose roll-outs have all ended, once they are a quarter of all."""
        if alive.float().mean() > 0.75:
            return token
        self.cache.batch_select_indices(alive.nonzero()[:, 0])
        for name in ("owner", "limit", "temperature", "open", "visible", "length"):
            setattr(self, name, getattr(self, name)[alive])
        return token[alive]

    def _forward(self, token: torch.Tensor) -> torch.Tensor:
        rows, slots = token.shape
        own = torch.eye(slots, dtype=torch.bool).repeat(1, self.count)
        mask = torch.cat(
            [
                self.visible[:, None, :].expand(-1, slots, -1),
                own[None].expand(rows, -1, -1),
            ],
            -1,
        )
        position = (self.length + self.count - 1)[:, None].expand(-1, slots)
        out = self.model(
            input_ids=token,
            attention_mask=mask[:, None],
            position_ids=position,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.logits.float()
