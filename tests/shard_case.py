"""Checkpoints as a training of verl leaves them: FSDP2 on gloo, saved by verl's own manager.

Run as a program, `python tests/shard_case.py MODEL OUT whole:2 lora:1` writes
OUT/<kind>/global_step_7/actor, each by so many processes.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEP = 7


def make_shards(model: Path, out: Path, *jobs: str) -> None:
    """`whole:2` saves the model by two processes, `lora:1` it and an adapter by one."""
    env = {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    command = [sys.executable, __file__, str(model), str(out), *jobs]
    subprocess.run(command, env=env, check=True, timeout=300)


def run_jobs(model: Path, out: Path, jobs: list[str]) -> None:
    """Imports once and forks the ranks: most of the time goes into imports."""
    import peft  # noqa: F401
    import transformers  # noqa: F401
    import verl.utils.checkpoint.fsdp_checkpoint_manager  # noqa: F401

    fork = multiprocessing.get_context("fork")
    for job in jobs:
        kind, size = job.split(":")
        with tempfile.TemporaryDirectory() as meeting:
            ranks = [
                fork.Process(
                    target=save, args=(model, out, kind, rank, int(size), f"{meeting}/store")
                )
                for rank in range(int(size))
            ]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join()
            if any(process.exitcode for process in ranks):
                raise SystemExit(1)


def save(path: Path, out: Path, kind: str, rank: int, world_size: int, meeting: str) -> None:
    """One rank of one training."""
    import torch
    import torch.distributed as dist
    from omegaconf import OmegaConf
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    store = dist.FileStore(meeting, world_size)
    dist.init_process_group("gloo", rank=rank, world_size=world_size, store=store)
    mesh = init_device_mesh("cpu", (world_size,), mesh_dim_names=("fsdp",))
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if kind == "lora":
        model = with_adapter(model)
    layers = (model.get_base_model() if kind == "lora" else model).model.layers
    for module in (*layers, model):
        fully_shard(module, mesh=mesh)
    contents = ["model", "optimizer", "extra"]
    manager = FSDPCheckpointManager(
        model=model,
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3),
        processing_class=AutoTokenizer.from_pretrained(path),
        checkpoint_config=OmegaConf.create({"save_contents": contents, "load_contents": contents}),
    )
    manager.save_checkpoint(str(out / kind / f"global_step_{STEP}" / "actor"), global_step=STEP)
    dist.destroy_process_group()


def with_adapter(model: Any) -> Any:
    """The model with a peft adapter that changes what it computes; the same on every rank."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=32, target_modules="all-linear"
    )
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return adapted


if __name__ == "__main__":
    run_jobs(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
