"""Model folders: what is accepted, what is refused, what is published."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM

from convsearch.errors import CheckpointError, MissingFileError
from convsearch.train.checkpoint import latest_step, publish, require_model, weight_shapes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "first")


def test_a_model_is_accepted(model: Path) -> None:
    assert require_model(model) == model.resolve()
    assert weight_shapes(model)["model.norm.weight"] == (64,)


def test_what_is_no_model_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        require_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        require_model(tmp_path)
    (model / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        require_model(model)


@pytest.mark.parametrize("keep", [4, 200, -1])
def test_a_cut_off_file_is_named(model: Path, keep: int) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        weight_shapes(model)


def test_a_published_model_loads_in_the_precision_it_has(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    target = publish(model, tmp_path / "out", like=model)
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    assert loaded.dtype == torch.float32
    assert torch.equal(
        loaded.state_dict()["lm_head.weight"],
        load_file(model / "model.safetensors")["lm_head.weight"],
    )
    assert sorted(tmp_path.glob(".*")) == []


def test_a_model_that_lost_a_weight_is_not_published(model: Path, tmp_path: Path) -> None:
    broken = make_tiny_model(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        publish(broken, tmp_path / "out", like=model)
    assert not (tmp_path / "out").exists()


def test_the_latest_step_is_a_complete_one(tmp_path: Path) -> None:
    assert latest_step(tmp_path) == 0
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("4")
    assert latest_step(tmp_path) == 0
    (tmp_path / "global_step_4").mkdir()
    assert latest_step(tmp_path) == 4
