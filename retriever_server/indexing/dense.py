"""Builds a dense index folder from `corpus.jsonl`: vectors, the passages and a manifest."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import CheckpointError
from convsearch.files import iter_passages
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Passage
from retriever_server.backends.encoder import PASSAGE_LENGTH, Encoder, encoder_id, load_encoder
from retriever_server.manifest import Manifest, folder_in_making, write_manifest
from retriever_server.store import PassageStore, write_store

ENGINE = "dense"
VECTORS, NORMS = "vectors.npy", "norms.npy"
_WINDOW_BATCHES = 64
"""Batches that are sorted by length together, so that little padding is encoded."""


def passage_text(passage: Passage) -> str:
    """What the encoder reads of a passage: title, blank, text."""
    return f"{passage.title} {passage.text}".strip()


def build_dense_index(
    corpus_path: Path,
    out_dir: Path,
    *,
    encoder_path: Path,
    max_length: int = PASSAGE_LENGTH,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Encodes title and text of every passage; returns the manifest.

    max_length: tokens of a passage that are read. on_progress: called with passages done and all.
    The folder appears when it is complete; an older index of that name is replaced. Vectors are
    float32 in a memory-mapped file, so memory stays small.
    Raises DataError for a bad corpus, CheckpointError for a bad encoder, ConfigError for a folder
    that is no index.
    """
    start = time.monotonic()
    encoder = load_encoder(encoder_path)
    with folder_in_making(out_dir) as folder:
        num_passages = sum(1 for _ in write_store(folder, iter_passages(corpus_path)))
        store = PassageStore(folder)
        vectors_ND = np.lib.format.open_memmap(
            folder / VECTORS, mode="w+", dtype=np.float32, shape=(num_passages, encoder.dim)
        )
        window = batch_size * _WINDOW_BATCHES
        for first in range(0, num_passages, window):
            passages = [store.at(i) for i in range(first, min(first + window, num_passages))]
            vectors_ND[first : first + len(passages)] = _encode(
                encoder, encoder_path, passages, max_length, batch_size
            )
            if on_progress is not None:
                on_progress(first + len(passages), num_passages)
        np.save(folder / NORMS, _norms(vectors_ND, window))
        vectors_ND.flush()
        settings = {
            "encoder_kind": encoder.kind,
            "encoder_id": encoder_id(encoder_path),
            "passage_length": max_length,
        }
        manifest = write_manifest(
            folder,
            ENGINE,
            {
                "num_passages": num_passages,
                "dim": encoder.dim,
                **settings,
                "corpus_sha256": sha256_of(corpus_path),
            },
        )
        write_passport(
            folder / "run.json",
            stage="index",
            settings={"engine": ENGINE, "encoder_path": str(encoder_path), **settings},
            inputs=[corpus_path],
            counts={"passages": num_passages},
            seconds=time.monotonic() - start,
        )
    return manifest


def _encode(
    encoder: Encoder, folder: Path, passages: list[Passage], max_length: int, batch_size: int
) -> npt.NDArray[np.float32]:
    texts = [passage_text(passage) for passage in passages]
    vectors = encoder.encode(texts, is_query=False, max_length=max_length, batch_size=batch_size)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = passages[int(np.argmin(finite))].doc_id
        raise CheckpointError(
            f"{folder}: the encoder gives numbers that are not finite for passage {bad!r}; its "
            "weights are broken"
        )
    return vectors


def _norms(vectors_ND: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.float64]:
    blocks = [
        np.linalg.norm(vectors_ND[first : first + step].astype(np.float64), axis=1)
        for first in range(0, len(vectors_ND), step)
    ]
    return np.concatenate(blocks)
