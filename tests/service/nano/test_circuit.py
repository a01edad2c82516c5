"""Heads set by hand: before any training they go on with a copy, and begin one at rare words."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from convsearch.errors import ConfigError
from convsearch.nano.circuit import ROPE_THETA, TokenTraits, set_copying

VOCAB = 2000
USER, ASSISTANT = 0, 1
NUM_COMMON = 100
"""Tokens with a lower id are common ones."""


def model(hidden_size: int = 168) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=hidden_size,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=80,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            attention_bias=True,
            tie_word_embeddings=False,
        )
    )


def traits() -> TokenTraits:
    rarity = torch.ones(VOCAB)
    rarity[:NUM_COMMON] = -2.0
    rarity[[USER, ASSISTANT]] = -3.0
    return TokenTraits(
        rarity=rarity, inside_word=torch.zeros(VOCAB), user=USER, assistant=ASSISTANT
    )


def copying_model() -> LlamaForCausalLM:
    policy = model()
    set_copying(policy, traits(), torch.Generator().manual_seed(0))
    return policy


def random_tokens(rows: int, length: int) -> torch.Tensor:
    """Rare tokens, no token twice in a row of the result."""
    draws = [
        torch.randperm(VOCAB - NUM_COMMON, generator=torch.Generator().manual_seed(row))[:length]
        for row in range(rows)
    ]
    return torch.stack(draws) + NUM_COMMON


@pytest.mark.parametrize("distance", [20, 250])
def test_goes_on_with_a_span_it_has_read(distance: int) -> None:
    read = random_tokens(8, distance)
    read[:, 0] = USER
    span = read[:, 3:15]
    with torch.no_grad():
        logits = copying_model()(torch.cat([read, span], dim=1)).logits
    said = logits[:, distance:-1].argmax(-1)
    assert (said == span[:, 1:]).float().mean() > 0.8


def test_without_the_heads_nothing_is_copied() -> None:
    read = random_tokens(8, 40)
    span = read[:, 3:15]
    with torch.no_grad():
        said = model()(torch.cat([read, span], dim=1)).logits[:, 40:-1].argmax(-1)
    assert (said == span[:, 1:]).float().mean() < 0.1


def test_a_copy_begins_at_a_rare_token_that_was_not_said_yet() -> None:
    """Common words with three rare ones among them; the response has said the first."""
    unsaid = 0
    policy = copying_model()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        read = torch.randint(2, NUM_COMMON, (40,), generator=generator)
        rare = random_tokens(1, 20)[0, [seed, (seed + 1) % 20, (seed + 2) % 20]]
        read[[10, 20, 30]] = rare
        ids = torch.cat([torch.tensor([USER]), read, torch.tensor([ASSISTANT]), rare[:1]])
        with torch.no_grad():
            said = int(policy(ids[None]).logits[0, -1].argmax())
        unsaid += said in rare[1:].tolist()
    assert unsaid >= 15


@pytest.mark.parametrize("hidden_size", [63, 120])
def test_a_model_without_room_is_refused(hidden_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"width of 167 or more.*found {hidden_size}"):
        set_copying(model(hidden_size=hidden_size), traits(), torch.Generator())
