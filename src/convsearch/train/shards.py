"""What a folder that training left behind is: shards of verl, or an adapter of peft."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convsearch.errors import CheckpointError, MissingFileError
from convsearch.train.checkpoint import latest_step

Kind = Literal["shards", "adapter"]
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_STEP = re.compile(r"global_step_(\d+)")


@dataclass(frozen=True, kw_only=True)
class TrainedFolder:
    """A checkpoint that can be merged."""

    folder: Path
    """The folder that holds the files themselves."""
    kind: Kind
    world_size: int = 1
    """Processes that wrote it: one shard each."""
    step: int | None = None
    """Training step, where the path tells it."""

    @property
    def shards(self) -> list[Path]:
        """The files with weights, by rank."""
        if self.kind == "adapter":
            return sorted(self.folder.glob("adapter_model.*"))
        names = (f"model_world_size_{self.world_size}_rank_{r}.pt" for r in range(self.world_size))
        return [self.folder / name for name in names]


def find_checkpoint(path: Path) -> TrainedFolder:
    """The checkpoint in `path`: a run's folder (its last step), a `global_step_<n>`, its `actor`,
    or an adapter. Raises MissingFileError, CheckpointError for none, or one with missing shards."""
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such folder; name a checkpoint, as .../global_step_100")
    last = latest_step(path)
    start = path / f"global_step_{last}" if last else path
    for folder in (start, start / "actor", start / "lora_adapter"):
        if (folder / "adapter_config.json").is_file():
            return TrainedFolder(folder=folder, kind="adapter", step=_step_of(folder))
        found = [_SHARD.fullmatch(file.name) for file in folder.glob("model_world_size_*.pt")]
        sizes = {int(match[1]) for match in found if match}
        if len(sizes) > 1:
            raise CheckpointError(
                f"{folder}: shards of {len(sizes)} trainings with {sorted(sizes)} processes; "
                "leave those of one in it"
            )
        if sizes:
            trained = TrainedFolder(
                folder=folder, kind="shards", world_size=sizes.pop(), step=_step_of(folder)
            )
            for shard in trained.shards:
                if not shard.is_file():
                    raise CheckpointError(
                        f"{shard}: this shard is missing; copy it from the node that wrote it "
                        f"(shards there must be: {trained.world_size})"
                    )
            return trained
    steps = sorted(int(m[1]) for file in path.iterdir() if (m := _STEP.fullmatch(file.name)))
    if steps:
        raise CheckpointError(
            f"{path}: which of its checkpoints is complete is not recorded "
            "(latest_checkpointed_iteration.txt is missing or names none); name the one to take, "
            f"such as {path / f'global_step_{steps[-1]}'}"
        )
    raise CheckpointError(
        f"{path}: no checkpoint: neither model_world_size_<n>_rank_<r>.pt of verl nor "
        "adapter_config.json of peft is in it"
    )


def training_overrides(folder: Path) -> list[str]:
    """What verl was told, from the record that the recipes leave beside their checkpoints; empty
    where there is none."""
    for parent in list(folder.resolve().parents)[:3]:
        record = parent / "hydra" / ".hydra" / "overrides.yaml"
        if record.is_file():
            import yaml

            words = yaml.safe_load(record.read_text(encoding="utf-8"))
            return [str(word) for word in words] if isinstance(words, list) else []
    return []


def _step_of(folder: Path) -> int | None:
    match = next((m for part in reversed(folder.parts) if (m := _STEP.fullmatch(part))), None)
    return int(match[1]) if match else None
