"""Checkpoints as a training of verl leaves them: FSDP2 on gloo, saved by verl's own manager.

Run as a program, `python tests/shard_case.py MODEL OUT WORLD_SIZE whole|lora [whole|lora]`, one
process for each rank, it writes OUT/<kind>/global_step_7/actor.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEP = 7


def make_shards(model: Path, out: Path, world_size: int, *kinds: str) -> None:
    """Starts the ranks and waits for them. `lora` has adapters with random weights."""
    with tempfile.TemporaryDirectory() as meeting:
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, str(model), str(out), str(world_size), *kinds],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "MEETING": f"{meeting}/store",
                    "VERL_PLATFORM": "cpu",
                    "OMP_NUM_THREADS": "1",
                    "TORCHDYNAMO_DISABLE": "1",
                },
            )
            for rank in range(world_size)
        ]
        assert [rank.wait(300) for rank in ranks] == [0] * world_size


def write_shards(model_path: Path, out: Path, rank: int, world_size: int, kinds: list[str]) -> None:
    import torch
    import torch.distributed as dist
    from omegaconf import OmegaConf
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    store = dist.FileStore(os.environ["MEETING"], world_size)
    dist.init_process_group("gloo", rank=rank, world_size=world_size, store=store)
    mesh = init_device_mesh("cpu", (world_size,), mesh_dim_names=("fsdp",))
    contents = ["model", "optimizer", "extra"]
    for kind in kinds:
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        if kind == "lora":
            model = with_adapter(model)
        layers = (model.get_base_model() if kind == "lora" else model).model.layers
        for module in (*layers, model):
            fully_shard(module, mesh=mesh)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        manager = FSDPCheckpointManager(
            model=model,
            optimizer=optimizer,
            processing_class=AutoTokenizer.from_pretrained(model_path),
            checkpoint_config=OmegaConf.create(
                {"save_contents": contents, "load_contents": contents}
            ),
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
    write_shards(
        Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["RANK"]), int(sys.argv[3]),
        sys.argv[4:],
    )  # fmt: skip
