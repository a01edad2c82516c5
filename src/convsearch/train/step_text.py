"""One finished step of a training in words, for a line of progress."""

from convsearch.train.metrics import Metrics

_SHOWN = (
    ("critic/score/mean", "reward {:.3f}"),
    ("rewrite/found", "found {:.0%}"),
    ("rewrite/malformed", "malformed {:.0%}"),
    ("rewrite/flat_groups", "equal groups {:.0%}"),
    ("actor/kl_loss", "KL {:.4f}"),
    ("train/loss", "loss {:.3f}"),
    ("val/loss", "validation loss {:.3f}"),
    ("train/lr", "lr {:.1e}"),
    ("timing_s/step", "{:.1f} s"),
)
"""verl's metric -> how it is said, in this order."""


def step_text(metrics: Metrics) -> str:
    """`reward 0.412, found 61%, …`: what a person looks at, of what was logged."""
    return ", ".join(text.format(metrics[name]) for name, text in _SHOWN if name in metrics)
