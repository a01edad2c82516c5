"""Any sentence-transformers model as an encoder. Importing this module needs that library."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from sentence_transformers import SentenceTransformer

from convsearch.errors import CheckpointError
from retriever_server.backends.encoder import Vectors


class SentenceEncoder:
    """See `Encoder`. The model's own prompts for queries and documents are used; vectors are
    normalised where the model compares by cosine, so the inner product is its own measure."""

    kind = "sentence-transformers"

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where files are missing or broken, or lack any weight."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
            dim = self._model.get_embedding_dimension()
            missing = _missing_weights(folder, self._model)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: the sentence-transformers model does not load: {error}"
            ) from None
        if missing or dim is None:
            raise CheckpointError(
                f"{folder}: {len(missing)} weights not in the checkpoint, such as {missing[:1]}; "
                "it is incomplete: download it again"
            )
        self.dim, self.device = dim, device
        self._longest = self._model.max_seq_length
        self._normalize = self._model.similarity_fn_name == "cosine"
        self._lock = threading.Lock()

    def encode(
        self, texts: Sequence[str], *, is_query: bool, max_length: int, batch_size: int
    ) -> Vectors:
        """See `Encoder.encode`."""
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        unique = sorted(set(texts), key=lambda text: (len(text), text))
        rows = {text: row for row, text in enumerate(unique)}
        method = self._model.encode_query if is_query else self._model.encode_document
        with self._lock:  # the cut is a setting of the model, not of a call
            self._model.max_seq_length = min(max_length, self._longest or max_length)
            vectors = method(
                unique,
                batch_size=batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=self._normalize,
            )
        return np.asarray(vectors, dtype=np.float32)[[rows[text] for text in texts]]


def _missing_weights(folder: Path, model: SentenceTransformer) -> list[str]:
    """Weights of the transformer that no file holds: transformers fills them with random numbers
    and only logs it. The pooler is left out, which no sentence-transformers model reads."""
    transformer = getattr(model[0], "auto_model", None)
    if not isinstance(transformer, torch.nn.Module):
        return []
    stored = set(_stored_names(folder))
    return [
        name
        for name, _ in transformer.named_parameters()
        if not name.startswith("pooler.")
        and name not in stored
        and not any(key.endswith(f".{name}") for key in stored)
    ]


def _stored_names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="np") as tensors:
            yield from tensors.keys()
    for path in folder.rglob("*.bin"):
        yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True)
