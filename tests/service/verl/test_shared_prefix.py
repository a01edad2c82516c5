"""Sequences laid out with shared prompts give the numbers of sequences run alone."""

import pytest
import torch
from convsearch_verl.shared_prefix import shared_prefix_layout
from transformers import PreTrainedModel

PROMPTS = [[5, 6, 7, 8], [9], [5, 6, 7, 8], [10, 11], [5, 6, 7, 8]]
RESPONSES = [[20, 21, 22], [23, 24], [25], [26, 27, 28, 29, 30], [20, 21]]
SEQUENCES = [torch.tensor(p + r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
LENGTHS = [len(p) for p in PROMPTS]


def alone(model: PreTrainedModel) -> torch.Tensor:
    """Log-probability of every response token, one sequence at a time."""
    found = []
    for ids, length in zip(SEQUENCES, LENGTHS, strict=True):
        log_probs = torch.log_softmax(model(ids[None]).logits[0], -1)
        found.append(log_probs[:-1].gather(-1, ids[1:, None])[length - 1 :, 0])
    return torch.cat(found)


def shared(model: PreTrainedModel) -> torch.Tensor:
    layout = shared_prefix_layout(SEQUENCES, LENGTHS, pad_id=0)
    logits = model(
        input_ids=layout.input_ids,
        attention_mask=layout.attention_mask,
        position_ids=layout.position_ids,
        logits_to_keep=layout.kept,
        use_cache=False,
    ).logits
    log_probs = torch.log_softmax(logits.flatten(0, 1), -1)
    taken = log_probs.gather(-1, layout.labels.flatten()[:, None])[:, 0]
    flat = torch.zeros(sum(map(len, SEQUENCES)))
    flat = flat.index_put((layout.target,), taken[layout.source])
    starts = torch.tensor([0, *map(len, SEQUENCES)]).cumsum(0).tolist()
    return torch.cat(
        [
            flat[start + length - 1 : start + len(ids) - 1]
            for start, length, ids in zip(starts, LENGTHS, SEQUENCES, strict=False)
        ]
    )


def test_one_row_a_prompt() -> None:
    layout = shared_prefix_layout(SEQUENCES, LENGTHS, pad_id=0)
    assert layout.input_ids.shape == (3, 3 + 6)
    assert layout.input_ids[0].tolist() == [5, 6, 7, 8, 20, 21, 8, 8, 20]
    assert layout.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 3, 3, 4]
    assert layout.labels[0].tolist() == [20, 21, 22, 25, 20, 21]


@torch.no_grad()
def test_log_probs_are_the_same(model: PreTrainedModel) -> None:
    torch.testing.assert_close(shared(model), alone(model), rtol=0, atol=2e-5)


def test_gradients_are_the_same(model: PreTrainedModel) -> None:
    weights = torch.linspace(-1, 2, sum(map(len, RESPONSES)))
    gradients = []
    for way in (alone, shared):
        model.zero_grad()
        (way(model) * weights).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("length", [0, 3])
def test_a_sequence_needs_a_prompt_and_a_response(length: int) -> None:
    with pytest.raises(ValueError, match="cannot be its prompt"):
        shared_prefix_layout([torch.tensor([1, 2, 3])], [length], pad_id=0)
