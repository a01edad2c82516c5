"""First weights set by hand: an untrained model that already copies rare words of its prompt.

Two abilities, each of a few attention heads:

* To go on with a copy. An induction head (Elhage et al. 2021, Olsson et al. 2022) takes two layers:
  heads of the first write into every position which tokens stood before it; a head of the second
  looks for the position whose two previous tokens are the current one and the one before, and
  writes the token found there to the output.
* To begin one. Where the next token of a copy would be a common one, a head of the third layer
  looks for rare tokens of the prompt that follow a common one, and another takes back what the
  response has said already.

Gradient descent finds these late or, with the vocabulary of real conversations and a small model,
not within an hour on a CPU. Set as a start, training sharpens them and learns when to use which.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convsearch.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

CODE_SIZE = 52
"""Random numbers that stand for a token to be read or written."""
MATCH_SIZE = 28
"""So many of them suffice to find the same token again."""
ROPE_THETA = 1e8
"""Base of the rotary positions: most dimensions of a head turn slowly enough to compare tokens that
are hundreds of positions apart."""

TOKEN, TO_WRITE, ONE_BACK, TWO_BACK = (
    *(0, CODE_SIZE, 2 * CODE_SIZE),
    2 * CODE_SIZE + MATCH_SIZE,
)
"""Where the residual stream holds the code of which token."""
_TRAITS = TWO_BACK + MATCH_SIZE
RARITY, RARITY_BACK, RARITY_TO_WRITE, INSIDE_WORD, IS_USER, IS_ASSISTANT, IN_RESPONSE = range(
    _TRAITS, _TRAITS + 7
)
"""Single dimensions: how rare the token, the one before it and the one to write are; whether the
token continues a word, begins the prompt, begins the response, stands in the response."""
MIN_WIDTH = _TRAITS + 7
MIN_HEADS = 3

_CODE_SCALE = 0.5
_NOISE = 0.02
"""Scale of all other weights, as transformers starts them."""
_STEPPING_PAIRS = 6
"""Rotation pairs that tell neighbouring positions apart: the fastest ones."""
_STEPPING_BIAS = 7.7
"""Makes the wanted number of steps back outweigh any other by e^5 and more."""
_MATCH_SCALES = (2.3, 1.6)
"""Weights of the match of the current token and of the one before it; the first must do alone."""
_LONGEST_PHASE = 0.006
"""Radians a position: below this a pair turns less than two radians over 300 tokens."""
_CONSTANT = 8.0
"""Bias of a query that looks for the same at every position."""


@dataclass(frozen=True, kw_only=True)
class TokenTraits:
    """What the first weights know of the vocabulary; each [vocab_size]."""

    rarity: "torch.Tensor"
    """How seldom a token is in the domain, of about unit scale; low for marks and tags."""
    inside_word: "torch.Tensor"
    """1 for a token that continues a word, else 0."""
    user: int
    """Id of the mark that begins a prompt."""
    assistant: int
    """Id of the mark that begins a response."""


def set_copying(
    model: "LlamaForCausalLM",
    traits: TokenTraits,
    generator: "torch.Generator",
    *,
    begins: bool = True,
) -> None:
    """Writes the heads, the embeddings and the output layer of `model`, in place.

    begins: with the heads that begin a copy, which suppose one prompt and one response.
    Needs attention biases, three layers of MIN_HEADS heads, a width of at least MIN_WIDTH and
    heads with enough slowly turning dimensions; raises ConfigError without.
    """
    config = model.config
    inv_freq = [float(f) for f in model.model.rotary_emb.inv_freq]
    slow = [i for i, frequency in enumerate(inv_freq) if frequency < _LONGEST_PHASE]
    slow += [i + len(inv_freq) for i in slow]
    if (
        config.hidden_size < MIN_WIDTH
        or config.num_hidden_layers < 3
        or config.num_attention_heads < MIN_HEADS
        or len(slow) < 2 * MATCH_SIZE
    ):
        raise ConfigError(
            f"a nano policy needs a width of {MIN_WIDTH} or more, three layers and {MIN_HEADS} "
            f"heads with {2 * MATCH_SIZE} slow rotary dimensions (found {config.hidden_size}, "
            f"{config.num_hidden_layers}, {config.num_attention_heads} with {len(slow)})"
        )
    _set_codes(model, traits, generator)
    size = 2 * len(inv_freq)
    heads = [
        [_Head(layer.self_attn, number, size) for number in range(MIN_HEADS)]
        for layer in model.model.layers
    ]
    for steps in (1, 2):
        _look_back(heads[0][steps - 1], steps, inv_freq)
    heads[0][0].move(RARITY, RARITY_BACK, 0.25, at=MATCH_SIZE)
    heads[0][2].look_for({IS_ASSISTANT: 4.0}, slow[0])
    heads[0][2].move(IS_ASSISTANT, IN_RESPONSE, 0.25)
    _match(heads[1][0], slow)
    if not begins:
        return
    starts = {RARITY: 2.5, RARITY_BACK: -1.2, INSIDE_WORD: -4.5}
    begin, take_back = heads[2][0], heads[2][1]
    begin.look_for({**starts, IN_RESPONSE: -4.5}, slow[0])
    begin.rest_at(IS_USER, {RARITY_TO_WRITE: 4.0}, 10.0, slow[1])
    take_back.look_for({**starts, IN_RESPONSE: 4.5}, slow[0])
    take_back.rest_at(IS_USER, {RARITY_TO_WRITE: 4.0}, 10.0, slow[1])
    for i in range(CODE_SIZE):
        begin.move(TOKEN + i, TO_WRITE + i, 8.0, at=i)
        take_back.move(TOKEN + i, TO_WRITE + i, -4.0, at=i)


def _set_codes(
    model: "LlamaForCausalLM", traits: TokenTraits, generator: "torch.Generator"
) -> None:
    embedding = model.model.embed_tokens.weight.data.normal_(0, _NOISE, generator=generator)
    output = model.lm_head.weight.data.normal_(0, _NOISE, generator=generator)
    code = embedding.new_empty(len(embedding), CODE_SIZE)
    code.normal_(0, _CODE_SCALE, generator=generator)
    code[traits.user] = 0  # heads rest there, and then write nothing
    embedding[:, TOKEN : TOKEN + CODE_SIZE] = code
    output[:, TO_WRITE : TO_WRITE + CODE_SIZE] = code
    embedding[:, RARITY] = traits.rarity
    embedding[:, INSIDE_WORD] = traits.inside_word
    embedding[traits.user, IS_USER] = 1.0
    embedding[traits.assistant, IS_ASSISTANT] = 1.0


class _Head:
    """One attention head to be written; what it was is scaled down to noise."""

    def __init__(self, attention, number: int, size: int) -> None:
        self.attention, self.first = attention, number * size
        part = slice(self.first, self.first + size)
        attention.o_proj.weight.data[:, part] *= 0.1
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight.data[part] *= 0.1
            projection.bias.data[part] = 0

    def look_for(self, wanted: dict[int, float], dimension: int) -> None:
        """At every position: attends where the weighted sum of residual dimensions is large."""
        self.attention.q_proj.bias.data[self.first + dimension] = _CONSTANT
        for place, weight in wanted.items():
            self.attention.k_proj.weight.data[self.first + dimension, place] = weight

    def rest_at(self, mark: int, when: dict[int, float], bias: float, dimension: int) -> None:
        """Attends to the position with `mark` instead, where the weighted sum at the query says."""
        self.attention.q_proj.bias.data[self.first + dimension] = bias
        for place, weight in when.items():
            self.attention.q_proj.weight.data[self.first + dimension, place] = weight
        self.attention.k_proj.weight.data[self.first + dimension, mark] = 8.0

    def move(self, source: int, target: int, scale: float, *, at: int = 0) -> None:
        """Adds what it reads in dimension `source` to `target`, through its own dimension `at`."""
        self.attention.v_proj.weight.data[self.first + at, source] = 1
        self.attention.o_proj.weight.data[target, self.first + at] = scale


def _look_back(head: _Head, steps: int, inv_freq: list[float]) -> None:
    """Reads the token `steps` positions back."""
    for i in range(_STEPPING_PAIRS):
        # q turned by so many positions: the product of the pair is largest that far back.
        angle, second = steps * inv_freq[i], i + len(inv_freq)
        head.attention.k_proj.bias.data[head.first + i] = _STEPPING_BIAS
        head.attention.q_proj.bias.data[head.first + i] = _STEPPING_BIAS * math.cos(angle)
        head.attention.q_proj.bias.data[head.first + second] = -_STEPPING_BIAS * math.sin(angle)
    for i in range(MATCH_SIZE):
        head.move(TOKEN + i, (TOKEN, ONE_BACK, TWO_BACK)[steps] + i, 0.25, at=i)


def _match(head: _Head, slow: list[int]) -> None:
    """Reads the token that followed when the current token and the one before it stood last."""
    pairs = ((TOKEN, ONE_BACK), (ONE_BACK, TWO_BACK))
    for number, (here, there) in enumerate(pairs):
        for i, dimension in enumerate(slow[number * MATCH_SIZE : (number + 1) * MATCH_SIZE]):
            scale = _MATCH_SCALES[number]
            head.attention.q_proj.weight.data[head.first + dimension, here + i] = scale
            head.attention.k_proj.weight.data[head.first + dimension, there + i] = scale
    for i in range(CODE_SIZE):
        head.move(TOKEN + i, TO_WRITE + i, 1.0, at=i)
    head.move(RARITY, RARITY_TO_WRITE, 1.0, at=CODE_SIZE)
