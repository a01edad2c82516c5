"""What both trainings of nano models share: learning rate, loss of the tokens that count."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convsearch.nano.first_model import require_torch

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

Sample = tuple[list[int], list[bool]]
"""Ids, and which of them are to be learnt."""


def lr_factor(step: int, steps: int, most_warm_up: int) -> float:
    """Share of the peak rate: linear over a tenth of the steps, at most `most_warm_up`, then cosine
    to a twentieth."""
    warm_up = min(most_warm_up, max(1, steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def backward(
    model: "LlamaForCausalLM", batch: Sequence[Sample], pad: int, like_lengths: int
) -> float:
    """Adds the gradient of the mean cross-entropy of all tokens to be learnt; returns that mean.

    `like_lengths` samples of like length are computed together: half of a mixed batch would be
    padding.
    """
    scored = sum(sum(counts) for _, counts in batch)
    ordered = sorted(batch, key=lambda sample: len(sample[0]))
    total = 0.0
    for start in range(0, len(ordered), like_lengths):
        loss = loss_sum(model, ordered[start : start + like_lengths], pad)[0] / scored
        loss.backward()
        total += loss.item()
    return total


def measure(
    model: "LlamaForCausalLM", samples: Sequence[Sample], pad: int, like_lengths: int
) -> tuple[float, float]:
    """(mean cross-entropy, share of tokens found most likely) over the tokens to be learnt."""
    torch = require_torch()
    scored = sum(sum(counts) for _, counts in samples)
    loss = right = 0.0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(samples), like_lengths):
            part, hits = loss_sum(model, samples[start : start + like_lengths], pad)
            loss, right = loss + part.item(), right + hits
    return loss / max(1, scored), right / max(1, scored)


def loss_sum(
    model: "LlamaForCausalLM", part: Sequence[Sample], pad: int
) -> "tuple[torch.Tensor, int]":
    """Cross-entropy of the tokens to be learnt, summed, and how many of them are found most likely;
    the output layer runs on those positions alone."""
    torch = require_torch()
    length = max(len(ids) for ids, _ in part)
    ids_BT = torch.full((len(part), length), pad)
    counts_BT = torch.zeros((len(part), length), dtype=torch.bool)
    for row, (ids, counts) in enumerate(part):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        counts_BT[row, : len(ids)] = torch.tensor(counts)
    hidden = model.model(input_ids=ids_BT[:, :-1]).last_hidden_state  # right padding, causal
    logits = model.lm_head(hidden[counts_BT[:, 1:]])
    wanted = ids_BT[:, 1:][counts_BT[:, 1:]]
    loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
    return loss, int((logits.argmax(-1) == wanted).sum())
