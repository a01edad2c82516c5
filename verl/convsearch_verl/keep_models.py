"""Keeps the model of every saved step, so that validation can choose among them afterwards.

verl removes old checkpoints and does not ask how good they were. The weights of a checkpoint in
Hugging Face form are hard-linked to `models/step_<n>` beside the checkpoints, which takes no room
until verl removes its own name of them.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

MODELS = "models"


class KeepModels(CheckpointCallback):
    """For `trainer.checkpoint_callback_class`. A checkpoint without such weights is left alone."""

    def on_save(
        self,
        trainer: Any,
        global_step: int,
        checkpoint_dir: str,
        async_save: bool = False,
        **kwargs: Any,
    ) -> None:
        """Links `<checkpoint_dir>/actor/huggingface`; a step that was kept before is replaced."""
        source = Path(checkpoint_dir) / "actor" / "huggingface"
        if not any(source.glob("*.safetensors")):
            return
        target = Path(checkpoint_dir).parent / MODELS / f"step_{global_step}"
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, partial, copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def _link(source: str, target: str) -> None:
    """A second name for the file; a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
