"""Which step of a training is published."""

import math
from pathlib import Path

import pytest

from convsearch.errors import ConfigError, StageError
from convsearch.train.best_step import best_step, model_of, validation_rewards
from convsearch.train.grpo_settings import GrpoSettings, grpo_overrides

REWARD = "val-core/mini/reward/mean@1"


def test_the_best_validated_step_wins_and_the_earliest_of_equals(tmp_path: Path) -> None:
    metrics = {
        1: {"critic/score/mean": 9.0},
        10: {REWARD: 1.0},
        20: {REWARD: 1.5, "val-aux/mini/rank/mean@1": 7.0},
        30: {REWARD: 1.5},
        40: {REWARD: 1.9},
    }
    assert validation_rewards(metrics) == {10: 1.0, 20: 1.5, 30: 1.5, 40: 1.9}
    for step in (10, 20, 30):
        model_of(step, tmp_path).mkdir(parents=True)
    assert best_step(metrics, tmp_path) == (20, tmp_path / "models" / "step_20"), "40 is not kept"


@pytest.mark.parametrize("rewards", [(math.nan, 0.5), (0.5, math.nan)])
def test_a_reward_that_is_no_number_is_not_the_best(
    tmp_path: Path, rewards: tuple[float, float]
) -> None:
    metrics = {step: {REWARD: reward} for step, reward in zip((10, 20), rewards, strict=True)}
    for step in metrics:
        model_of(step, tmp_path).mkdir(parents=True)
    assert best_step(metrics, tmp_path)[0] == (10 if rewards[0] == 0.5 else 20)


def test_without_a_validated_step_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no step has both"):
        best_step({1: {"critic/score/mean": 1.0}}, tmp_path)


def grpo(**values: object) -> GrpoSettings:
    paths = {"model_path": Path("m"), "train_file": Path("t.parquet"), "out_dir": Path("o")}
    return GrpoSettings(**paths, total_steps=40, device="cpu", num_gpus=1, **values)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "values",
    [
        {"val_freq": 10, "save_freq": 10},
        {"val_file": Path("v.parquet"), "save_freq": 10},
        {"val_file": Path("v.parquet"), "val_freq": 10, "save_freq": 20},
    ],
)
def test_choosing_needs_steps_that_are_validated_and_saved(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="keep_best"):
        grpo(keep_best=True, **values)


def test_the_weights_of_every_saved_step_are_kept_to_choose_among() -> None:
    fine = {"val_file": Path("v.parquet"), "val_freq": 20, "save_freq": 10}
    kept = [o for o in grpo_overrides(grpo(keep_best=True, **fine)) if "KeepModels" in o]
    assert kept == ["trainer.checkpoint_callback_class='convsearch_verl.keep_models.KeepModels'"]
    assert not [o for o in grpo_overrides(grpo(**fine)) if "KeepModels" in o]
