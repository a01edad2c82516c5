"""Lays out sequences so that a prompt shared by several of them is computed once.

GRPO trains on n responses to each prompt. Run one by one, the prompt, which is most of the tokens,
is computed n times, and so are the logits of all its positions, which nobody needs. Here the
sequences of one prompt share a row,

    [ prompt, its last token off | that, response 1, its last off | that, response 2, its last off ]

under a mask that lets each part see the prompt and itself. Every column of the parts predicts
exactly one token of one response. The arithmetic is that of the sequences run alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class SharedPrefixLayout:
    """R rows of W columns; the last K columns hold the parts that predict."""

    input_ids: torch.Tensor
    """(R, W)"""
    position_ids: torch.Tensor
    """(R, W)"""
    attention_mask: torch.Tensor
    """(R, 1, W, W), true where a query (third axis) sees a key."""
    kept: torch.Tensor
    """(K,) the columns whose logits are needed."""
    labels: torch.Tensor
    """(R, K) the token each kept column predicts; 0 in columns that predict nothing."""
    source: torch.Tensor
    """(N,) of each predicted token, its place in the flattened (R, K)."""
    target: torch.Tensor
    """(N,) of each predicted token, the place before it in the concatenated sequences."""


def shared_prefix_layout(
    sequences: Sequence[torch.Tensor], prompt_lengths: Sequence[int], pad_id: int
) -> SharedPrefixLayout:
    """The layout of these sequences.

    sequences: token ids of prompt and response. prompt_lengths: at least 1, less than the whole.
    Sequences with equal prompts share a row wherever they stand; short prompts are padded on the
    left, rows with few response tokens on the right.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (ids, length) in enumerate(zip(sequences, prompt_lengths, strict=True)):
        if not 1 <= length < len(ids):
            raise ValueError(f"sequence {i}: {length} of {len(ids)} tokens cannot be its prompt")
        groups.setdefault(tuple(ids[:length].tolist()), []).append(i)
    offsets = [0, *torch.tensor([len(ids) for ids in sequences]).cumsum(0).tolist()]
    before = max(len(prompt) - 1 for prompt in groups)
    after = max(sum(len(sequences[i]) - len(p) for i in members) for p, members in groups.items())
    shape = (len(groups), before + after)
    input_ids = torch.full(shape, pad_id)
    position_ids = torch.zeros(shape, dtype=torch.long)
    part = torch.full(shape, -1)
    labels = torch.zeros((len(groups), after), dtype=torch.long)
    source, target = [], []
    for row, (prompt, members) in enumerate(groups.items()):
        shared = len(prompt) - 1
        input_ids[row, before - shared : before] = torch.tensor(prompt[:-1], dtype=torch.long)
        position_ids[row, before - shared : before] = torch.arange(shared)
        part[row, before - shared : before] = 0
        start = 0
        for number, i in enumerate(members, 1):
            ids = sequences[i]
            size = len(ids) - len(prompt)
            columns = slice(before + start, before + start + size)
            input_ids[row, columns] = ids[shared:-1]
            position_ids[row, columns] = torch.arange(shared, shared + size)
            part[row, columns] = number
            labels[row, start : start + size] = ids[len(prompt) :]
            source.append(torch.arange(start, start + size) + row * after)
            target.append(torch.arange(shared, shared + size) + offsets[i])
            start += size
    return SharedPrefixLayout(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_mask(part),
        kept=torch.arange(before, before + after),
        labels=labels,
        source=torch.cat(source),
        target=torch.cat(target),
    )


def _mask(part: torch.Tensor) -> torch.Tensor:
    """part: (R, W); -1 padding, 0 prompt, k the k-th response. Returns (R, 1, W, W)."""
    width = part.shape[1]
    query, key = part[:, :, None], part[:, None, :]
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    seen = causal & (key >= 0) & ((key == 0) | (key == query))
    seen = seen | torch.eye(width, dtype=torch.bool)  # padding sees itself: a softmax needs one
    return seen[:, None]
