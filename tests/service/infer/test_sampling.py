"""Drawing tokens: the right distribution, from one row's own numbers."""

import math

import pytest
import torch

from convsearch.infer import SamplingParams
from convsearch.infer.sampling import next_tokens, row_uniforms

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, float("-inf"), 0.0])


def shares(params: SamplingParams, num_draws: int = 40_000) -> torch.Tensor:
    uniforms = torch.rand(
        num_draws, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    drawn = next_tokens(LOGITS.expand(num_draws, -1), uniforms, params)
    return torch.bincount(drawn, minlength=len(LOGITS)) / num_draws


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_the_distribution_is_the_softmax(temperature: float):
    expected = torch.softmax(LOGITS / temperature, dim=0)
    error = 5 * torch.sqrt(expected * (1 - expected) / 40_000)
    found = shares(SamplingParams(temperature=temperature))
    assert ((found - expected).abs() <= error).all()
    assert found[4] == 0


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.5, [0]), (0.7, [0, 1]), (0.85, [0, 1, 2]), (1e-9, [0])]
)
def test_top_p_draws_from_the_smallest_set_that_reaches_it(top_p: float, kept: list[int]):
    probs = torch.softmax(LOGITS, dim=0)
    mask = torch.zeros_like(probs)
    mask[kept] = 1
    expected = probs * mask / (probs * mask).sum()
    found = shares(SamplingParams(temperature=1.0, top_p=top_p))
    assert ((found - expected).abs() <= 0.013).all()
    assert set(found.nonzero().flatten().tolist()) == set(kept)


def test_temperature_zero_is_the_largest():
    assert shares(SamplingParams(temperature=0.0))[0] == 1.0


def test_the_ends_of_the_unit_interval_never_leave_the_support():
    ends = torch.tensor([0.0, math.nextafter(1.0, 0.0), 1.0], dtype=torch.float64)
    logits = torch.tensor([float("-inf"), 0.0, 0.0, float("-inf")]).expand(3, -1)
    assert next_tokens(logits, ends, SamplingParams(temperature=1.0)).tolist() == [1, 2, 2]


def test_a_row_depends_on_its_seed_alone():
    together = row_uniforms([11, 22, 33], 8)
    assert torch.equal(together[1], row_uniforms([22], 8)[0])
    assert torch.equal(together[1, :5], row_uniforms([22], 5)[0])
    assert not torch.equal(together[0], together[1])
