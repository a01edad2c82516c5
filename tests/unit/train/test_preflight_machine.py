"""Batches that divide, GPUs that are there, room for the checkpoints."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from convsearch.errors import ConfigError, DependencyError, WriteError
from convsearch.train.preflight import machine
from convsearch.train.preflight.batches import check_grpo_batches, check_sft_batches
from convsearch.train.preflight.machine import check_disk, check_gpus, check_sampler, choose_device


def test_a_micro_batch_must_divide_the_responses_of_an_update() -> None:
    sizes = {"prompts_per_step": 8, "rollouts": 4, "mini_batch": 0, "num_gpus": 1}
    check_grpo_batches(**sizes, micro_batch=32)
    with pytest.raises(ConfigError) as error:
        check_grpo_batches(**sizes, micro_batch=64)
    assert "--micro-batch 64" in str(error.value)
    assert "--prompts-per-step 8 x --rollouts 4 / --num-gpus 1" in str(error.value)
    assert str(error.value).endswith("take --micro-batch 32")
    with pytest.raises(ConfigError, match=r"--mini-batch 6 x .*take --micro-batch 6$"):
        check_grpo_batches(prompts_per_step=12, rollouts=2, mini_batch=6, num_gpus=2, micro_batch=8)


def test_the_same_for_fine_tuning() -> None:
    check_sft_batches(batch=64, micro_batch=4, nproc=8)
    with pytest.raises(ConfigError, match=r"--micro-batch 64 .*--batch 64 / --nproc 2.* 32$"):
        check_sft_batches(batch=64, micro_batch=64, nproc=2)
    with pytest.raises(ConfigError, match=r"--batch 9 .*--nproc 2; take --batch 10"):
        check_sft_batches(batch=9, micro_batch=1, nproc=2)


@pytest.mark.parametrize(
    ("asked", "processes", "there", "device", "used"),
    [
        ("auto", None, 0, "cpu", 1),
        ("auto", 2, 0, "cpu", 2),
        ("auto", None, 4, "cuda", 4),
        ("auto", None, 16, "cuda", 8),
        ("auto", 2, 4, "cuda", 2),
        ("auto", 8, 4, "cpu", 8),
        ("cuda", None, 0, "cuda", 8),
        ("cpu", None, 4, "cpu", 1),
        ("cpu", 0, 0, "cpu", 0),  # which the settings refuse
    ],
)
def test_where_a_training_runs(
    monkeypatch: pytest.MonkeyPatch,
    asked: machine.DeviceChoice,
    processes: int | None,
    there: int,
    device: str,
    used: int,
) -> None:
    monkeypatch.setattr(machine, "num_gpus_here", lambda: there)
    chosen = choose_device(asked, processes, "--num-gpus")
    assert (chosen.device, chosen.processes) == (device, used)
    assert (chosen.reason is None) == (asked != "auto")


def test_too_few_gpus_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_gpus_here", lambda: 0)
    with pytest.raises(ConfigError, match=r"--num-gpus 8: no GPU .* --device cpu"):
        check_gpus("cuda", 8, "--num-gpus")
    check_gpus("cpu", 8, "--num-gpus")
    monkeypatch.setattr(machine, "num_gpus_here", lambda: 2)
    with pytest.raises(ConfigError, match=r"--nproc 4: 2 GPUs are here; take --nproc 2"):
        check_gpus("cuda", 4, "--nproc")
    check_gpus("cuda", 2, "--nproc")


def test_a_training_on_gpus_needs_something_that_samples() -> None:
    from importlib.metadata import PackageNotFoundError, version

    check_sampler("cpu")
    try:
        version("vllm")
    except PackageNotFoundError:
        with pytest.raises(DependencyError, match=r"pip install .*vllm.*--device cpu"):
            check_sampler("cuda")
    else:
        check_sampler("cuda")


def write_model(folder: Path, parameters: int) -> Path:
    """A file of weights whose header promises so many float32 numbers; they take no room."""
    folder.mkdir()
    entry = {"dtype": "F32", "shape": [parameters], "data_offsets": [0, 4 * parameters]}
    header = json.dumps({"w": entry}).encode()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        out.truncate(8 + len(header) + 4 * parameters)
    return folder


def test_checkpoints_that_will_not_fit_are_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m", 100_000_000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3_000_000_000))
    old = tmp_path / "out" / "checkpoints"
    with pytest.raises(WriteError, match=r"2 checkpoints .* need 3\.60 GB, and 3\.00 GB are free"):
        check_disk(model, tmp_path / "new" / "out", checkpoints=9, written=old)
    check_disk(model, tmp_path / "new" / "out", checkpoints=1, written=old)
    old.mkdir(parents=True)
    with (old / "weights").open("wb") as out:  # what an interrupted run has left is room too
        out.truncate(700_000_000)
    check_disk(model, tmp_path / "out", checkpoints=9, written=old)
