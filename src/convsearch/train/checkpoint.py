"""Model folders in Hugging Face form: checked on the way in, published on the way out."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

from convsearch.errors import CheckpointError, MissingFileError
from convsearch.files import atomic_write, writing
from convsearch.prompts.asking import ASKING_FILE, Asking, write_asking

Shapes = dict[str, tuple[int, ...]]
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Names in safetensors -> names in config.json."""


def require_model(folder: Path) -> Path:
    """The folder, made absolute. Raises MissingFileError or CheckpointError if it is no model."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; name a model in Hugging Face form")
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder}: not a model: config.json or *.safetensors is missing; name the folder that "
            "holds them"
        )
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise CheckpointError(f"{folder}: not a model: the tokenizer's files are missing")
    return folder.resolve()


def weight_shapes(folder: Path) -> Shapes:
    """Name -> shape of all weights, as the files' headers say. Raises CheckpointError."""
    return {name: tuple(entry["shape"]) for name, entry in _headers(folder).items()}


def _headers(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as stream:
                (size,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(size))
        except (struct.error, ValueError, MemoryError, OverflowError) as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error})") from None
        end = 8 + size
        for name, entry in header.items():
            if name != "__metadata__":
                found[name] = entry
                end = max(end, 8 + size + entry["data_offsets"][1])
        if path.stat().st_size != end:
            raise CheckpointError(f"{path}: cut off; expected {end} bytes; save the model again")
    return found


def publish(source: Path, target: Path, *, like: Path, asking: Asking | None = None) -> Path:
    """Copies a trained model to `target`, complete or not at all; returns target.

    like: the model the training started from; the result must have the same weights' names and
    shapes. asking: how it is to be asked, None where that is not known. Raises CheckpointError
    where weights differ.
    """
    require_model(source)
    made, wanted = weight_shapes(source), weight_shapes(like)
    different = sorted(
        name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name)
    )
    different = [name for name in different if not _may_be_tied(name, made, wanted)]
    if different:
        raise CheckpointError(
            f"{source}: weight {different[0]!r} is not as in {like}; the training saved a broken "
            "model, start it again"
        )
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(target):
        shutil.copytree(source, temporary)
    declare_dtype(temporary)
    (temporary / ASKING_FILE).unlink(missing_ok=True)
    if asking is not None:
        write_asking(temporary, asking)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return target


def declare_dtype(folder: Path) -> None:
    """Makes config.json say what the weights are. verl copies the first model's `dtype` there and
    saves float32: a loader that believes the config would round them."""
    dtypes = {entry["dtype"] for entry in _headers(folder).values()}
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    if len(dtypes) == 1:
        config["dtype"] = _DTYPES.get(dtypes.pop(), "float32")
    with atomic_write(path) as out:
        json.dump(config, out, indent=2)
        out.write("\n")


def _may_be_tied(name: str, made: Shapes, wanted: Shapes) -> bool:
    """An output layer tied to the embedding may be written out or left out."""
    return name == "lm_head.weight" and (name not in made or name not in wanted)


def latest_step(folder: Path) -> int:
    """Step of verl's last complete checkpoint under `folder`, 0 where there is none."""
    tracker = folder / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        return 0
    text = tracker.read_text().strip()
    return int(text) if text.isdecimal() and (folder / f"global_step_{text}").is_dir() else 0
