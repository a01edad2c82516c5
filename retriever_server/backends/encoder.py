"""Text to vectors, with a model loaded from a folder: ANCE or any sentence-transformers model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from convsearch.errors import (
    CheckpointError,
    DataError,
    DependencyError,
    MissingFileError,
    install_command,
)
from convsearch.passport import sha256_of
from convsearch.texts import read_json_object

Vectors = npt.NDArray[np.float32]

QUERY_LENGTH = 64
"""Tokens of a query that are read: the cut of ANCE (arXiv 2007.00808) and of ConvSearch-R1."""
PASSAGE_LENGTH = 384
"""Tokens of a passage that are read, as in the conversational search line of ANCE indexes."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
_MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")


class Encoder(Protocol):
    """One model for queries and passages. Safe for threads.

    Identical texts of one call get identical vectors. The company of other texts may change the
    last bits of a vector, as with every batched matrix product.
    """

    @property
    def kind(self) -> str:
        """`ance` or `sentence-transformers`."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def device(self) -> str:
        """What it runs on: `cpu`, or the kind of accelerator, such as `cuda`."""
        ...

    def encode(
        self, texts: Sequence[str], *, is_query: bool, max_length: int, batch_size: int
    ) -> Vectors:
        """One row for each text. max_length: tokens; what is longer is cut, as is what the model
        cannot take."""
        ...


def load_encoder(folder: Path) -> Encoder:
    """The model in a folder. Raises MissingFileError or DependencyError, and CheckpointError where
    the folder is no model of these two kinds or lacks any of its weights."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; name the folder of the encoder")
    is_sentence_model = (folder / "modules.json").is_file()
    if not is_sentence_model:
        _check_is_roberta(folder)
    if not any(True for name in _TOKENIZER_FILES for _ in folder.rglob(name)):
        # transformers would make up a tokenizer that knows no word, without an error
        raise CheckpointError(
            f"{folder}: no tokenizer in this folder ({', '.join(_TOKENIZER_FILES)}); copy the "
            "tokenizer of the model into it"
        )
    try:
        if is_sentence_model:
            from retriever_server.backends.sentence import SentenceEncoder

            return SentenceEncoder(folder)
        from retriever_server.backends.ance import AnceEncoder

        return AnceEncoder(folder)
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run {install_command('retriever')}"
        ) from None


def encoder_id(folder: Path) -> str:
    """Hash of the model's files: equal exactly where two folders hold the same model."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in _MODEL_FILES)
    lines = [f"{path.relative_to(folder)} {sha256_of(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _check_is_roberta(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: not an encoder; it needs modules.json (sentence-transformers) or the "
            "config.json of an ANCE checkpoint"
        )
    try:
        kind = read_json_object(path, "download the checkpoint again").get("model_type")
    except DataError as error:
        raise CheckpointError(str(error)) from None
    if kind != "roberta":
        raise CheckpointError(
            f"{path}: model_type is {kind!r}; an ANCE checkpoint is a roberta model, and any other "
            "encoder must be a sentence-transformers folder with modules.json"
        )
