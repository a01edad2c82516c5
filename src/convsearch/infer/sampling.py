"""Drawing the next token of each row from its own stream of random numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convsearch.infer.engine import SamplingParams

if TYPE_CHECKING:
    import torch

SMALLEST_TEMPERATURE = 1e-5
"""Below it, draws are greedy: the quotients would overflow, and nothing else could be drawn anyway;
also vLLM's rule."""


def row_uniforms(seeds: Sequence[int], num_steps: int) -> "torch.Tensor":
    """Uniform numbers in [0, 1), shape (rows, steps), float64: row i depends on seeds[i] alone."""
    import torch

    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.rand(num_steps, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def next_tokens(
    logits_BV: "torch.Tensor", uniforms_B: "torch.Tensor", params: SamplingParams
) -> "torch.Tensor":
    """The next token id of each row, by inverting the cumulative distribution at uniforms_B.

    Ids whose logit is -inf are never drawn. Temperature 0 takes the largest logit.
    """
    import torch

    if params.temperature < SMALLEST_TEMPERATURE:
        return logits_BV.argmax(dim=-1)
    probs_BV = torch.softmax(logits_BV.float() / params.temperature, dim=-1)
    if params.top_p < 1:
        probs_BV = _nucleus(probs_BV, params.top_p)
    cumulative_BV = probs_BV.double().cumsum(dim=-1)
    total_B = cumulative_BV[:, -1]
    # Strictly under the total, so that the first id whose cumulative value exceeds it exists and
    # has a probability above 0.
    points_B = torch.minimum(uniforms_B * total_B, torch.nextafter(total_B, total_B.new_zeros(())))
    return torch.searchsorted(cumulative_BV, points_B[:, None], right=True)[:, 0]


def _nucleus(probs_BV: "torch.Tensor", top_p: float) -> "torch.Tensor":
    """Zeroes all but the most probable ids that together reach top_p; at least one stays."""
    import torch

    sorted_BV, ids_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    share = max(top_p, torch.finfo(before_BV.dtype).tiny)
    return probs_BV.scatter(-1, ids_BV, sorted_BV.masked_fill(before_BV >= share, 0.0))
