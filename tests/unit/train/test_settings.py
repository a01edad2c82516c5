"""Settings of the two trainings, and the files they are given."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convsearch.errors import (
    CheckpointError,
    ConfigError,
    ConvsearchError,
    DataError,
    MissingFileError,
)
from convsearch.train.grpo import run_grpo
from convsearch.train.grpo_settings import GrpoSettings, grpo_overrides
from convsearch.train.overrides import override
from convsearch.train.rows import count_rows
from convsearch.train.sft import SftSettings, run_sft, sft_overrides


def sft(folder: Path, **values: object) -> SftSettings:
    paths = {
        "model_path": folder / "m",
        "train_file": folder / "t.parquet",
        "out_dir": folder / "o",
    }
    return SftSettings(**{**paths, "nproc": 1, "device": "cpu", **values})  # pyright: ignore[reportArgumentType]


def grpo(folder: Path, **values: object) -> GrpoSettings:
    paths = {
        "model_path": folder / "m",
        "train_file": folder / "t.parquet",
        "out_dir": folder / "o",
    }
    defaults = {"total_steps": 4, "num_gpus": 1, "device": "cpu"}
    return GrpoSettings(**{**paths, **defaults, **values})  # pyright: ignore[reportArgumentType]


def write(path: Path, column: str, rows: int) -> None:
    pq.write_table(pa.table({column: ["x"] * rows}), path)


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    s = SftSettings(model_path=tmp_path, train_file=tmp_path, out_dir=tmp_path)
    assert (s.batch, s.max_length, s.epochs, s.lr, s.warmup_ratio) == (64, 3072, 2, 1e-5, 0.1)
    g = GrpoSettings(model_path=tmp_path, train_file=tmp_path, out_dir=tmp_path, total_steps=2130)
    assert (g.prompts_per_step, g.rollouts, g.lr, g.lr_warmup_steps) == (128, 8, 1e-6, 100)
    assert (g.max_prompt_length, g.max_response_length) == (1536, 1024)
    assert (g.clip_ratio, g.kl_coef, g.temperature, g.topk) == (0.2, 0.001, 0.7, 100)


@pytest.mark.parametrize(
    "values",
    [
        {"rollouts": 1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"kl_coef": -1.0},
        {"lr_schedule": "linear"},
        {"prompts_per_step": 8, "mini_batch": 3},
        {"prompts_per_step": 3, "rollouts": 3, "num_gpus": 2},
    ],
)
def test_grpo_settings_that_cannot_work_are_refused(
    tmp_path: Path, values: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"grpo\."):
        grpo(tmp_path, **values)


def test_sft_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.batch"):
        sft(tmp_path, batch=6, micro_batch=4)
    with pytest.raises(ConfigError, match=r"sft\.epochs"):
        sft(tmp_path, epochs=0)


def test_no_reference_model_where_the_divergence_has_no_weight(tmp_path: Path) -> None:
    assert "actor_rollout_ref.actor.use_kl_loss=False" in grpo_overrides(grpo(tmp_path, kl_coef=0))
    assert "actor_rollout_ref.actor.use_kl_loss=True" in grpo_overrides(grpo(tmp_path))


def test_seed_and_device_reach_the_overrides(tmp_path: Path) -> None:
    lines = grpo_overrides(grpo(tmp_path, seed=7))
    assert {"data.seed=7", "actor_rollout_ref.rollout.seed=7"} <= set(lines)
    assert "actor_rollout_ref.rollout.name='hf_cpu'" in lines
    gpu = grpo_overrides(grpo(tmp_path, device="cuda"))
    assert "actor_rollout_ref.rollout.name='vllm'" in gpu
    assert not any("ray_init" in line for line in gpu)
    assert "engine.strategy='fsdp2'" in sft_overrides(sft(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "k=null"),
        (True, "k=True"),
        (1e-06, "k=1e-06"),
        (["a", "b"], "k=['a','b']"),
        (Path("/a b/c,d=e"), "k='/a b/c,d=e'"),
        ("it's", "k='it\\'s'"),
    ],
)
def test_overrides_are_quoted(value: object, text: str) -> None:
    assert override("k", value) == text  # pyright: ignore[reportArgumentType]


def test_bad_training_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(MissingFileError, match=r"t\.parquet"):
        count_rows(path, needs=())
    path.write_text("no parquet")
    with pytest.raises(DataError, match="not a Parquet file"):
        count_rows(path, needs=())
    write(path, "other", 1)
    with pytest.raises(DataError, match='"messages"'):
        count_rows(path, needs=("messages",))
    write(path, "messages", 0)
    with pytest.raises(DataError, match="no rows"):
        count_rows(path, needs=("messages",))


def test_bad_inputs_stop_before_a_trainer_starts(tmp_path: Path) -> None:
    def both_raise(error: type[ConvsearchError], what: str) -> None:
        with pytest.raises(error, match=what):
            run_sft(sft(tmp_path, batch=64), tmp_path / "log")
        with pytest.raises(error, match=what):
            run_grpo(
                grpo(tmp_path, prompts_per_step=64),
                "http://127.0.0.1:1",
                tmp_path / "log",
                tmp_path / "metrics.jsonl",
            )
        assert not (tmp_path / "o").exists()

    both_raise(MissingFileError, "no such folder")
    (tmp_path / "m").mkdir()
    both_raise(CheckpointError, "not a model")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / "m" / name).touch()
    both_raise(MissingFileError, r"t\.parquet")
    columns = {name: ["x"] * 3 for name in ("messages", "prompt", "reward_model", "data_source")}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    both_raise(ConfigError, "do not fill")
