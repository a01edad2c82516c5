"""What is asked of a model before anything is loaded: is it a checkpoint, and which one."""

import hashlib
from pathlib import Path

from convsearch.errors import CheckpointError
from convsearch.prompts.asking import ASKING_FILE

_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
_SAMPLED_BYTES = 1 << 16
_SAMPLES = 64


def check_model(model: str) -> None:
    """Accepts a Hugging Face folder, or a hub name such as `Qwen/Qwen2.5-3B-Instruct`.

    Raises CheckpointError for a folder without configuration, tokenizer or weights, for a file,
    and for a path that does not exist, or a name without an owner, which the hub has none of.
    """
    path = Path(model)
    if not path.exists():
        if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
            raise CheckpointError(
                f"{model}: no such folder; name a Hugging Face checkpoint folder or a hub model"
            )
        if "/" not in model:
            raise CheckpointError(
                f"{model}: no such folder, and no name of a hub model, which is OWNER/NAME; check "
                "the path"
            )
        return
    if not path.is_dir():
        raise CheckpointError(f"{model}: is a file; name the folder that holds config.json")
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"{model}: not a checkpoint, config.json is missing; name a Hugging Face folder "
            "(training writes one under its checkpoint's 'huggingface' folder)"
        )
    if not any(any(path.glob(pattern)) for pattern in _WEIGHTS):
        raise CheckpointError(
            f"{model}: not a whole checkpoint, no *.safetensors or *.bin weights in it; "
            "finish the download, or export the trained weights into this folder"
        )
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise CheckpointError(
            f"{model}: no tokenizer in it; copy the tokenizer files of the base model into it"
        )


def model_name(model: str) -> str:
    """The name of a folder, wherever it lies; a hub name as it is."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def fingerprint(model: str) -> str:
    """A short hash that tells checkpoints apart: names, sizes, and bytes sampled evenly from each
    file, so that it is quick for a model of any size; what is said about the model is left out. Of
    a hub name, the hash of the name."""
    path = Path(model)
    digest = hashlib.sha256()
    if not path.is_dir():
        digest.update(model.encode())
    else:
        files = [f for f in sorted(path.iterdir()) if f.is_file() and _is_of_the_model(f)]
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name}\x1f{size}\x1f".encode())
            stride = max(_SAMPLED_BYTES, size // _SAMPLES)
            with file.open("rb") as stream:
                for start in range(0, size, stride):
                    stream.seek(start)
                    digest.update(stream.read(_SAMPLED_BYTES))
    return digest.hexdigest()[:16]


def _is_of_the_model(file: Path) -> bool:
    return file.suffix != ".md" and file.name != ASKING_FILE
