"""Builds a dense index folder from `corpus.jsonl`: vectors, the passages and a manifest.

Passages are encoded a shard at a time; a run that was killed goes on at its last whole shard, with
the same bytes as an unbroken one. Under torchrun each process takes shards of its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import CheckpointError, DataError
from convsearch.passages import iter_passages
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Passage
from retriever_server.backends.encoder import PASSAGE_LENGTH, Encoder, encoder_id, load_encoder
from retriever_server.backends.prefixes import Prefixes, with_prefixes
from retriever_server.dense.forecast import Forecast, check_disk
from retriever_server.dense.formats import check_format, item_bytes
from retriever_server.dense.vectors import (
    FORMAT_VERSION,
    SHARD_ROWS,
    Shard,
    finish_vectors,
    write_shard,
)
from retriever_server.indexing.dense_job import Job
from retriever_server.indexing.workers import Workers
from retriever_server.making import is_made
from retriever_server.manifest import Manifest, file_table, read_manifest, write_manifest
from retriever_server.store import STORE_FILES, PassageStore, write_store

ENGINE = "dense"
SOME_HAVE = ("imported_sha256", "imported_ids_sha256", "query_prefix", "passage_prefix")
"""Fields of the manifest of an imported index, and of one with prefixes."""
OLD_VECTORS = "vectors.npy"
"""File of the first version of this index, which is refused."""
_WINDOW_BATCHES = 64
"""Batches that are sorted by length together, so that little padding is encoded."""
_SAMPLE_BATCHES = 2
"""Batches that are timed for the forecast."""


def passage_text(passage: Passage) -> str:
    """What the encoder reads of a passage: title, blank, text."""
    return f"{passage.title} {passage.text}".strip()


def ids_at(store: PassageStore, positions: Sequence[int] | range) -> list[str]:
    """Ids of the passages at these positions."""
    return store.doc_ids(positions)


def build_dense_index(
    corpus_path: Path,
    out_dir: Path,
    *,
    encoder_path: Path,
    max_length: int = PASSAGE_LENGTH,
    batch_size: int = 32,
    dtype: str = "bfloat16",
    shard_rows: int = SHARD_ROWS,
    prefixes: Prefixes | None = None,
    keep: bool = False,
    on_forecast: Callable[[Forecast], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Encodes title and text of every passage; returns the manifest.

    max_length: tokens of a passage that are read. dtype: bfloat16, float16 or float32, what vectors
    are rounded to. prefixes: what the model wants before queries and passages. on_forecast: called
    before encoding, with what the whole will take. on_progress: called with passages done and all,
    of this process. The folder appears when it is complete, in place of an older index. keep: one
    of the same corpus, encoder and settings is returned as it is, and another one refused.
    Raises DataError for a bad corpus, CheckpointError for a bad encoder, ConfigError for a folder
    that is no index, for one begun with other settings, and for a disk without room.
    """
    start = time.monotonic()
    number_format = check_format(dtype)
    workers, job = Workers(), Job(out_dir)
    prefixes = prefixes or Prefixes()
    encoder = with_prefixes(load_encoder(encoder_path), prefixes, encoder_path)
    settings: dict[str, object] = {
        "corpus_sha256": sha256_of(corpus_path) if corpus_path.is_file() else "",
        "encoder_kind": encoder.kind,
        "encoder_id": encoder_id(encoder_path),
        "passage_length": max_length,
        "dtype": number_format,
        "batch_size": batch_size,
        "shard_rows": shard_rows,
        "vectors_version": FORMAT_VERSION,
        **prefixes.facts,
    }
    if keep and is_made(out_dir, ENGINE, identity_of(settings)):
        return read_manifest(out_dir)
    with ExitStack() as stack:
        if workers.is_first:
            stack.enter_context(job.held(settings))
            store_passages(job, corpus_path)
        workers.wait()
        store = PassageStore(job.folder)
        num_shards = -(-len(store) // shard_rows)
        encode = _Shards(encoder, encoder_path, store, max_length, batch_size)
        todo = [number for number in workers.share(num_shards) if job.shard(number) is None]
        if workers.is_first and todo:
            forecast = Forecast(
                num_passages=len(store),
                dim=encoder.dim,
                format=number_format,
                corpus_bytes=corpus_path.stat().st_size,
                passages_per_s=encode.passages_per_s() * workers.number,
            )
            if on_forecast is not None:
                on_forecast(forecast)
            check_disk(job.folder, len(todo) * shard_rows * encoder.dim * item_bytes(number_format))
        mine = [_shard_range(number, shard_rows, len(store)) for number in todo]
        total, done = sum(len(rows) for rows in mine), 0
        for number, rows in zip(todo, mine, strict=True):
            values_ND = np.empty((len(rows), encoder.dim), dtype=np.float32)
            for window in encode.windows(rows):
                values_ND[window.start - rows.start : window.stop - rows.start] = encode(window)
                done += len(window)
                if on_progress is not None:
                    on_progress(done, total)
            job.mark_shard(number, write_shard(job.vectors_dir, number, values_ND, number_format))
        workers.wait()
        if workers.is_first:
            finish_index(
                job, num_shards, encoder=encoder, settings=settings, seconds=_since(start),
                inputs=[corpus_path], encoder_path=encoder_path,
            )  # fmt: skip
    workers.wait()
    return read_manifest(out_dir)


def facts_of(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of a build that its manifest holds."""
    return {name: value for name, value in settings.items() if name != "batch_size"}


def identity_of(settings: Mapping[str, object]) -> dict[str, object]:
    """The same with None for what this index has not: another one may have it."""
    return {**dict.fromkeys(SOME_HAVE), **facts_of(settings)}


def finish_index(
    job: Job, num_shards: int, *, encoder: Encoder, settings: dict[str, object], seconds: float,
    inputs: Sequence[Path], encoder_path: Path,
) -> None:  # fmt: skip
    """Merges finished shards to an index: bounds, manifest and passport, then the folder's name."""
    shards = [shard for number in range(num_shards) if (shard := job.shard(number)) is not None]
    num_passages = len(PassageStore(job.folder))
    _check_shards(job.folder, shards, num_shards, num_passages)
    finish_vectors(
        job.vectors_dir, shards, encoder_id=str(settings["encoder_id"]), dim=encoder.dim,
        name=check_format(str(settings["dtype"])),
    )  # fmt: skip
    write_manifest(
        job.folder,
        ENGINE,
        {
            "num_passages": num_passages,
            "dim": encoder.dim,
            **facts_of(settings),
            "vectors_sha256": sha256_of(job.vectors_dir / "vectors.json"),
            "files": file_table(job.folder, STORE_FILES),
        },
    )
    write_passport(
        job.folder / "run.json",
        stage="index",
        settings={"engine": ENGINE, "encoder_path": str(encoder_path), **settings},
        inputs=inputs,
        counts={"passages": num_passages, "shards": num_shards},
        seconds=seconds,
    )
    job.publish(num_shards)


def _check_shards(folder: Path, shards: list[Shard], num_shards: int, num_passages: int) -> None:
    rows = sum(shard.rows for shard in shards)
    if len(shards) != num_shards or rows != num_passages:
        raise DataError(
            f"{folder}: {len(shards)} of {num_shards} shards with {rows} of {num_passages} "
            "vectors; delete this folder and build the index again"
        )


def _since(start: float) -> float:
    return time.monotonic() - start


def store_passages(job: Job, corpus_path: Path) -> None:
    """Writes the passages of a corpus into the folder in making, once."""
    if job.is_stored:
        return
    num_passages = sum(1 for _ in write_store(job.folder, iter_passages(corpus_path)))
    if not num_passages:
        raise DataError(f"{corpus_path}: holds no passages; there is nothing to index")
    job.mark_stored()


def _shard_range(number: int, shard_rows: int, num_passages: int) -> range:
    return range(number * shard_rows, min((number + 1) * shard_rows, num_passages))


class _Shards:
    """Encodes passages of a store by position."""

    def __init__(
        self, encoder: Encoder, folder: Path, store: PassageStore, max_length: int, batch_size: int
    ) -> None:
        """folder: of the encoder, for errors."""
        self._encoder, self._folder, self._store = encoder, folder, store
        self._max_length, self._batch_size = max_length, batch_size

    def windows(self, rows: range) -> list[range]:
        """The positions of a shard in parts that are encoded at once."""
        step = self._batch_size * _WINDOW_BATCHES
        return [rows[first : first + step] for first in range(0, len(rows), step)]

    def passages_per_s(self) -> float:
        """Measured on passages at even steps through the corpus."""
        wanted = min(len(self._store), self._batch_size * _SAMPLE_BATCHES)
        step = max(1, len(self._store) // wanted)
        start = time.monotonic()
        self(range(0, wanted * step, step))
        return wanted / max(1e-9, time.monotonic() - start)

    def __call__(self, positions: range) -> npt.NDArray[np.float32]:
        """Vectors at these positions. Raises CheckpointError where one is not finite."""
        passages = self._store.read(ids_at(self._store, positions))
        vectors = self._encoder.encode(
            [passage_text(passage) for passage in passages],
            is_query=False,
            max_length=self._max_length,
            batch_size=self._batch_size,
        )
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            bad = passages[int(np.argmin(finite))].doc_id
            raise CheckpointError(
                f"{self._folder}: the encoder gives numbers that are not finite for passage "
                f"{bad!r}; its weights are broken"
            )
        return vectors
