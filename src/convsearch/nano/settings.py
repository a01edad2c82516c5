"""How a nano policy is shaped and pre-trained."""

from dataclasses import dataclass, field

from convsearch.nano.examples import SpanSettings

MAX_PROMPT_TOKENS = 384
MAX_RESPONSE_TOKENS = 96
"""What nano policies are made for."""


@dataclass(frozen=True, kw_only=True)
class NanoSettings:
    """Shape and pre-training of a nano policy."""

    vocab_size: int = 8192
    """Entries of the tokenizer, at most."""
    hidden_size: int = 168
    """Width; a multiple of num_heads."""
    num_heads: int = 3
    """Attention heads of a layer."""
    head_size: int = 80
    """Dimensions of an attention head."""
    num_layers: int = 3
    """Transformer layers; copying needs three."""
    intermediate_size: int = 480
    """Width of the feed-forward layers."""
    steps: int = 400
    """Optimiser steps in all."""
    random_share: float = 0.1
    """Share of examples from conversations of random words, which only exact copying solves."""
    batch_size: int = 48
    """Examples a step."""
    lr: float = 3e-3
    """Peak learning rate of AdamW: linear warm-up over 150 steps, then cosine to a twentieth."""
    sharpness: float = 1.15
    """The output layer is multiplied by this after training: a small model spreads some probability
    over words that stand nowhere, and sampled tokens should be sure ones."""
    seed: int = 0
    """Seeds weights, examples and order."""
    spans: SpanSettings = field(default_factory=SpanSettings)
    """Shape of the targets."""
