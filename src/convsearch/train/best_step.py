"""Which step of a training to publish: the one that validation liked best."""

import math
from collections.abc import Mapping
from pathlib import Path

from convsearch.errors import StageError
from convsearch.train.metrics import Metrics

KEEPER = "convsearch_verl.keep_models.KeepModels"
"""verl's callback that keeps the weights of every checkpoint, in `models/step_<n>`."""
_PREFIX, _SUFFIX = "val-core/", "/reward/mean@1"


def validation_rewards(metrics: Mapping[int, Metrics]) -> dict[int, float]:
    """Step -> mean reward of one greedy response to each prompt for validation.

    metrics: step -> what verl logged, see `read_metrics`. Steps without a finite one are left out.
    """
    return {
        step: value
        for step, values in metrics.items()
        for name, value in values.items()
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX) and math.isfinite(value)
    }


def best_step(metrics: Mapping[int, Metrics], checkpoints: Path) -> tuple[int, Path]:
    """The step with the highest validation reward, the earliest of equals, and its weights.

    Raises StageError where no validated step has kept weights.
    """
    kept = {
        step: reward
        for step, reward in validation_rewards(metrics).items()
        if model_of(step, checkpoints).is_dir()
    }
    if not kept:
        raise StageError(
            f"{checkpoints}: no step has both a validation reward and its weights; train again "
            "with a fresh output folder"
        )
    step = max(kept, key=lambda step: (kept[step], -step))
    return step, model_of(step, checkpoints)


def model_of(step: int, checkpoints: Path) -> Path:
    """Where the weights of a step are kept."""
    return checkpoints / "models" / f"step_{step}"
