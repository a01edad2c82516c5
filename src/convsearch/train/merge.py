"""Checkpoints of a training -> a model folder in Hugging Face form that has been tried out.

Shards are joined by verl's own merger, which writes bfloat16; adapters are added to their model by
peft. Shards are pickles; they are read by torch's loader for weights alone, which runs no code.
"""

import contextlib
import io
import logging
import os
import pickle
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convsearch.errors import CheckpointError, ConfigError, DependencyError, install_command
from convsearch.files import writing
from convsearch.hub.provenance import BASE_KEYS, hydra_values
from convsearch.passport import write_passport
from convsearch.prompts.asking import Asking, read_asking, write_asking
from convsearch.texts import read_json_object
from convsearch.train.asking import asking_of_training
from convsearch.train.checkpoint import declare_dtype, require_model
from convsearch.train.device import require_verl
from convsearch.train.load_test import LoadTest, load_test, load_whole, probe_ids
from convsearch.train.shards import TrainedFolder, find_checkpoint, training_overrides

logger = logging.getLogger(__name__)

STAGE = "merge"
ADAPTER = "lora_adapter"
"""Where verl's merger leaves the adapter of a LoRA training."""
WEIGHTS_ALONE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""torch's variable that makes every load one of weights alone."""
SAME_LOGITS = 1e-3
"""Largest difference, relative to the largest logit, that rounding in float32 explains."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A model folder, complete and tried out."""

    folder: Path
    source: TrainedFolder
    was_adapter: bool
    tried: LoadTest


def merge_checkpoint(checkpoint: Path, out: Path, *, base: Path | None = None) -> Merged:
    """Makes `out`; it appears complete or not at all, with a passport `run.json`.

    base: model in Hugging Face form that an adapter belongs to, for adapters whose checkpoint lacks
    it, and configuration and tokenizer for shards that lack them.
    Raises MissingFileError, CheckpointError, ConfigError, DependencyError.
    """
    source = find_checkpoint(checkpoint)
    if out.exists():
        raise ConfigError(f"{out}: exists already; name another folder or remove it")
    if base is not None:
        require_model(base)
    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if source.kind == "shards":
            join_shards(source, work, base)
            adapter = work / ADAPTER
        else:
            adapter = source.folder
        was_adapter = adapter.is_dir()
        beside = base
        if was_adapter:
            beside = base or _model_beside(source, adapter, work)
            add_adapter(adapter, beside, work)
        declare_dtype(work)
        tried = load_test(work)
        if asking := _asking_of(training_overrides(source.folder), beside):
            write_asking(work, asking)
        write_passport(
            work / "run.json",
            stage=STAGE,
            settings={
                "checkpoint": source.folder,
                "kind": "lora" if was_adapter else "whole",
                "world_size": source.world_size,
                "step": source.step,
                "base": base,
                "training_overrides": training_overrides(source.folder),
                "load_test": asdict(tried),
            },
            inputs=source.shards,
            counts={"shards": len(source.shards), "parameters": tried.num_parameters},
        )
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Merged(folder=out, source=source, was_adapter=was_adapter, tried=tried)


def _asking_of(overrides: Sequence[str], base: Path | None) -> Asking | None:
    """From what verl was told, where that record and its files are still there; else as the model
    that the training started from, where that one tells."""
    told = hydra_values(overrides)
    start = next((told[key] for key in BASE_KEYS if key in told), None)
    rows = Path(told.get("data.train_files", ""))
    if start is None or not rows.is_file():
        first = base or start
        return read_asking(first) if first is not None else None
    is_grpo = any(key.startswith("actor_rollout_ref.") for key in told)
    return asking_of_training(
        Path(start),
        rows,
        stage="grpo" if is_grpo else "sft",
        max_prompt_tokens=_count(told.get("data.max_prompt_length")),
        max_response_tokens=_count(told.get("data.max_response_length")),
        column="prompt" if is_grpo else "messages",
    )


def _count(word: str | None) -> int | None:
    return int(word) if word is not None and word.isdecimal() and int(word) else None


def join_shards(source: TrainedFolder, target: Path, base: Path | None) -> None:
    """Writes the model, and for a LoRA training its adapter in `target/lora_adapter`."""
    require_verl()
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    class Merger(FSDPModelMerger):
        """Takes the number of shards from their names: older checkpoints have no fsdp_config."""

        def _get_world_size(self) -> int:
            return source.world_size

    config_folder = source.folder / "huggingface"
    if not (config_folder / "config.json").is_file():
        if base is None:
            raise CheckpointError(
                f"{config_folder}: config.json is missing; name the model that the training "
                "started from with --base"
            )
        config_folder = base
    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(source.folder),
        target_dir=str(target),
        hf_model_config_path=str(config_folder),
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), weights_alone():
            check_shards(source.shards)
            Merger(config).merge_and_save()
    except (
        OSError, RuntimeError, ValueError, EOFError, AssertionError, KeyError, AttributeError,
        TypeError, NotImplementedError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{source.folder}: verl cannot join these shards: {error}; copy the checkpoint again, "
            "or take an earlier one"
        ) from None
    logger.debug("%s", said.getvalue())


@contextlib.contextmanager
def weights_alone() -> Iterator[None]:
    """Inside, torch.load refuses whatever is no weight, also where verl asks for a whole pickle."""
    before = os.environ.get(WEIGHTS_ALONE)
    os.environ[WEIGHTS_ALONE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[WEIGHTS_ALONE]
        else:
            os.environ[WEIGHTS_ALONE] = before


def check_shards(shards: Sequence[Path]) -> None:
    """Reads what the files say they hold, and not the numbers. Raises CheckpointError by file."""
    import torch

    for shard in shards:
        try:
            state = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{shard}: holds something else than weights, which is not loaded because it could "
                f"run code ({_what(error)}); take the shard that verl saved"
            ) from None
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise CheckpointError(
                f"{shard}: verl cannot join this shard, torch does not read it "
                f"({str(error).partition(chr(10))[0]}); copy the checkpoint again, or take an "
                "earlier one"
            ) from None
        if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
            raise CheckpointError(f"{shard}: holds no weights by name; take the shard of verl")


def _what(error: pickle.UnpicklingError) -> str:
    """The end of torch's explanation that names the object."""
    found = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
    return found[1] if found else "no pickle of torch"


def add_adapter(adapter: Path, base: Path, target: Path) -> None:
    """Writes base plus adapter into `target`, in bfloat16, computed in float32.

    Raises CheckpointError where the adapter does not fit, changes nothing, or where the sum does
    not compute what model and adapter do side by side.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise DependencyError(f"peft is not installed; run {install_command('train')}") from None
    import torch

    model, tokenizer = load_whole(base, dtype="float32")
    ids = probe_ids(tokenizer)
    with torch.inference_mode():
        before = model(input_ids=ids).logits
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(adapter)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{adapter}: the adapter does not fit {base}: {error}; name its own model with --base"
        ) from None
    with torch.inference_mode():
        beside = adapted(input_ids=ids).logits
        merged: Any = adapted.merge_and_unload(safe_merge=True)
        after = merged(input_ids=ids).logits
    scale = float(beside.abs().max())
    if torch.equal(before, beside):
        raise CheckpointError(
            f"{adapter}: the adapter changes nothing (lora_alpha or all of its weights are 0); the "
            "training has not learnt, or saved another adapter"
        )
    if float((after - beside).abs().max()) > SAME_LOGITS * scale:
        raise CheckpointError(
            f"{adapter}: model plus adapter does not compute what they do side by side; the "
            "adapter's kind is not supported"
        )
    for name in target.glob("*.safetensors*"):
        name.unlink()
    shutil.rmtree(target / ADAPTER, ignore_errors=True)
    with writing(target):
        merged.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)


def _model_beside(source: TrainedFolder, adapter: Path, work: Path) -> Path:
    """The model an adapter belongs to: joined with it, or named in its own configuration."""
    if source.kind == "shards":
        return work
    named = read_json_object(adapter / "adapter_config.json", "save the adapter again")
    folder = Path(str(named.get("base_model_name_or_path") or ""))
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{adapter}: its model ({folder}) is not a folder here; name it with --base"
        )
    return folder
