"""Real FSDP2 shards, saved by verl's own manager, become models that compute the same."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shard_case import STEP, make_shards, with_adapter
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import CheckpointError, ConfigError, MissingFileError
from convsearch.train.merge import WEIGHTS_ALONE, merge_checkpoint
from convsearch.train.shards import find_checkpoint

RANKS = 2


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("first") / "model")


@pytest.fixture(scope="session")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole` by two processes; `lora` by one, which has noted its last step."""
    out = tmp_path_factory.mktemp("run")
    make_shards(model, out, f"whole:{RANKS}", "lora:1")
    (out / "lora" / "latest_checkpointed_iteration.txt").write_text(str(STEP))
    return out


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def adapted_model(model: Path) -> torch.nn.Module:
    return with_adapter(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)).eval()


def test_joined_shards_are_the_weights_that_were_saved(
    run: Path, model: Path, tmp_path: Path
) -> None:
    recorded = run / "whole" / "hydra" / ".hydra" / "overrides.yaml"
    recorded.parent.mkdir(parents=True, exist_ok=True)
    recorded.write_text("- actor_rollout_ref.rollout.n=8\n- data.seed=0\n")
    out = tmp_path / "out" / "model"
    checkpoint = run / "whole" / f"global_step_{STEP}"
    done = CliRunner().invoke(
        app, ["merge", "--checkpoint", str(checkpoint), "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "from 2 shards" in done.stdout
    assert "it writes: " in done.stdout
    made, saved = weights_of(out), weights_of(model)
    assert made.keys() == saved.keys()
    assert all(torch.equal(made[name], saved[name].bfloat16()) for name in saved)
    text = "amber birch <rewrite>"
    first, second = (AutoTokenizer.from_pretrained(folder) for folder in (model, out))
    assert first(text)["input_ids"] == second(text)["input_ids"]
    assert first.chat_template == second.chat_template
    passport = json.loads((out / "run.json").read_text())
    assert (passport["settings"]["step"], passport["settings"]["world_size"]) == (STEP, RANKS)
    assert passport["settings"]["training_overrides"][0] == "actor_rollout_ref.rollout.n=8"
    assert len(passport["inputs"]) == RANKS
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_a_lora_training_becomes_one_model_with_its_effect(
    run: Path, model: Path, tmp_path: Path
) -> None:
    assert merge_checkpoint(run / "lora", tmp_path / "out").was_adapter
    made, saved = weights_of(tmp_path / "out"), weights_of(model)
    assert made.keys() == saved.keys()
    expected = adapted_model(model).merge_and_unload().state_dict()  # pyright: ignore
    changed = [name for name in saved if not torch.equal(made[name], saved[name].bfloat16())]
    assert len(changed) == 2 * 7, "all linear layers of both transformer layers"
    for name in made:
        assert torch.allclose(made[name].float(), expected[name], rtol=0.02, atol=0.01), name
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        wanted = adapted_model(model)(input_ids=ids).logits
        got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)(
            input_ids=ids
        ).logits
        before = AutoModelForCausalLM.from_pretrained(model)(input_ids=ids).logits
    assert (got - wanted).abs().max() < 0.05 * (before - wanted).abs().max()


def test_an_adapter_of_peft_is_added_to_its_model(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapted_model(model).save_pretrained(adapter)  # pyright: ignore[reportCallIssue]
    merge_checkpoint(adapter, tmp_path / "told")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "someone/else"})
    )
    with pytest.raises(ConfigError, match=r"someone/else.*--base"):
        merge_checkpoint(adapter, tmp_path / "untold")
    merge_checkpoint(adapter, tmp_path / "named", base=model)
    told, named = weights_of(tmp_path / "told"), weights_of(tmp_path / "named")
    assert all(torch.equal(told[name], named[name]) for name in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "named", "told"]


def test_an_adapter_without_effect_is_refused(model: Path, tmp_path: Path) -> None:
    adapted = adapted_model(model)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    adapted.save_pretrained(tmp_path / "adapter")  # pyright: ignore[reportCallIssue]
    with pytest.raises(CheckpointError, match="changes nothing"):
        merge_checkpoint(tmp_path / "adapter", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_broken_checkpoints_are_named_and_leave_nothing(
    run: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    whole = tmp_path / "whole"
    shutil.copytree(run / "whole" / f"global_step_{STEP}" / "actor", whole)
    second = whole / "model_world_size_2_rank_1.pt"
    bytes_ = second.read_bytes()
    second.write_bytes(bytes_[: len(bytes_) // 2])
    with pytest.raises(CheckpointError, match="cannot join"):
        merge_checkpoint(whole, out)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"rank_1\.pt: this shard is missing"):
        merge_checkpoint(whole, out)
    second.write_bytes(bytes_)
    (whole / "fsdp_config.json").unlink()
    shutil.rmtree(whole / "huggingface")
    with pytest.raises(CheckpointError, match="--base"):
        merge_checkpoint(whole, out)
    merge_checkpoint(whole, out, base=model)
    with pytest.raises(ConfigError, match="exists already"):
        merge_checkpoint(whole, out)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(model)
    with pytest.raises(MissingFileError, match="no such folder"):
        find_checkpoint(tmp_path / "nowhere")
    for step in (9, 10):
        (tmp_path / "unmarked" / f"global_step_{step}").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"is not recorded .* such as .*global_step_10$"):
        find_checkpoint(tmp_path / "unmarked")
    shutil.rmtree(tmp_path / "unmarked")
    (whole / "model_world_size_4_rank_0.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"\[2, 4\]"):
        find_checkpoint(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


class RunsCode:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("form", ["zip", "legacy", "raw", "beside weights", "list", "empty"])
def test_a_shard_that_is_a_foreign_pickle_is_refused_and_not_run(
    run: Path, tmp_path: Path, form: str, rank: int
) -> None:
    whole, marker = tmp_path / "whole", tmp_path / "ran"
    shutil.copytree(run / "whole" / f"global_step_{STEP}" / "actor", whole)
    shard = whole / f"model_world_size_{RANKS}_rank_{rank}.pt"
    foreign = {"model.norm.weight": RunsCode(marker)}
    if form == "zip":
        torch.save(foreign, shard)
    elif form == "legacy":
        torch.save(foreign, shard, _use_new_zipfile_serialization=False)
    elif form == "raw":
        shard.write_bytes(pickle.dumps(foreign))
    elif form == "beside weights":
        torch.save({**torch.load(shard, weights_only=False), **foreign}, shard)
    elif form == "list":
        torch.save([torch.zeros(2)], shard)
    else:
        shard.write_bytes(b"")
    command = ["merge", "--checkpoint", str(whole), "--out", str(tmp_path / "out")]
    with pytest.raises(CheckpointError, match=rf"rank_{rank}\.pt: (holds|verl cannot join)"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert WEIGHTS_ALONE not in os.environ


def test_a_model_that_computes_no_numbers_is_refused(
    run: Path, model: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(run / "whole" / f"global_step_{STEP}" / "actor", whole)
    for rank in range(RANKS):
        path = whole / f"model_world_size_{RANKS}_rank_{rank}.pt"
        state = torch.load(path, weights_only=False)
        state["model.norm.weight"]._local_tensor.fill_(float("nan"))
        torch.save(state, path)
    with pytest.raises(CheckpointError, match="not finite"):
        merge_checkpoint(whole, tmp_path / "out")
    assert not (tmp_path / "out").exists()
