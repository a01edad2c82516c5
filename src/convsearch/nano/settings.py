"""How a nano policy is shaped and pre-trained."""

from dataclasses import dataclass, field

from convsearch.nano.examples import SpanSettings


@dataclass(frozen=True, kw_only=True)
class NanoSettings:
    """Shape and pre-training of a nano policy."""

    vocab_size: int = 4096
    """Entries of the tokenizer."""
    hidden_size: int = 128
    """Width; attention heads have 32 dimensions each."""
    num_layers: int = 3
    """Transformer layers; copying needs at least two."""
    intermediate_size: int = 384
    """Width of the feed-forward layers."""
    steps: int = 1500
    """Optimiser steps in all."""
    copy_share: float = 0.4
    """First part of the steps that sees conversations of random words only."""
    copy_rest: float = 0.25
    """Share of random-word examples after that."""
    batch_size: int = 48
    """Examples a step."""
    lr: float = 3e-3
    """Peak learning rate of AdamW: linear warm-up over 150 steps, then cosine to a twentieth."""
    seed: int = 0
    """Seeds weights, examples and order."""
    spans: SpanSettings = field(default_factory=SpanSettings)
    """Shape of the targets."""
