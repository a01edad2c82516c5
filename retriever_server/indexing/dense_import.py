"""Makes a dense index of embeddings that an earlier project computed, instead of encoding again.

`doc_emb_cat.pkl` is a pickled array (passages, dim), `doc_embid_cat.pkl` the passage id of each of
its rows. A distributed sampler may have encoded some passages twice; such rows are dropped where
they agree.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError
from convsearch.passport import sha256_of
from retriever_server.backends.encoder import PASSAGE_LENGTH, encoder_id, load_encoder
from retriever_server.backends.prefixes import Prefixes, with_prefixes
from retriever_server.dense.forecast import Forecast, check_disk
from retriever_server.dense.formats import check_format
from retriever_server.dense.pickled_array import read_pickled_array
from retriever_server.dense.vectors import FORMAT_VERSION, SHARD_ROWS, write_shard
from retriever_server.indexing.dense import ENGINE, finish_index, identity_of, store_passages
from retriever_server.indexing.dense_job import Job
from retriever_server.making import is_made
from retriever_server.manifest import Manifest, read_manifest
from retriever_server.store import PassageStore

_SAME = 1e-2
"""Part of its length by which two vectors of one passage may differ: batches differ in rounding, in
half precision by up to that."""
_LOOKUP_IDS = 100_000
"""Ids that are looked up in the store at once."""
Ints = npt.NDArray[np.int64]


def import_dense_index(
    corpus_path: Path,
    out_dir: Path,
    *,
    encoder_path: Path,
    embeddings_path: Path,
    ids_path: Path,
    dtype: str = "bfloat16",
    shard_rows: int = SHARD_ROWS,
    prefixes: Prefixes | None = None,
    keep: bool = False,
    on_forecast: Callable[[Forecast], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Writes the vectors in the order of the corpus; returns the manifest.

    encoder_path: the encoder that made them, which will encode the queries. prefixes: those
    that the passages were encoded with, and the queries will be. keep, on_forecast, on_progress,
    and going on after a kill: as `build_dense_index`. Raises DataError where embeddings, ids and
    corpus do not fit together, with the first place where they do not.
    """
    start = time.monotonic()
    number_format = check_format(dtype)
    prefixes = prefixes or Prefixes()
    encoder = with_prefixes(load_encoder(encoder_path), prefixes, encoder_path)
    embeddings, ids = read_pickled_array(embeddings_path), read_pickled_array(ids_path)
    if embeddings.ndim != 2 or embeddings.shape[1] != encoder.dim or embeddings.dtype.kind != "f":
        raise DataError(
            f"{embeddings_path}: {embeddings.dtype} of shape {embeddings.shape}, but "
            f"{encoder_path} gives {encoder.dim} numbers a passage; name the encoder that made it"
        )
    if ids.shape != (len(embeddings),) or ids.dtype.kind not in "iu":
        raise DataError(
            f"{ids_path}: {ids.dtype} of shape {ids.shape} for {len(embeddings)} embeddings; it "
            "must hold one integer for each; take both files of one run"
        )
    job = Job(out_dir)
    settings: dict[str, object] = {
        "corpus_sha256": sha256_of(corpus_path) if corpus_path.is_file() else "",
        "encoder_kind": encoder.kind,
        "encoder_id": encoder_id(encoder_path),
        "passage_length": PASSAGE_LENGTH,
        "dtype": number_format,
        "imported_sha256": sha256_of(embeddings_path),
        "imported_ids_sha256": sha256_of(ids_path),
        "shard_rows": shard_rows,
        "vectors_version": FORMAT_VERSION,
        **prefixes.facts,
    }
    if keep and is_made(out_dir, ENGINE, identity_of(settings)):
        return read_manifest(out_dir)
    with job.held(settings):
        store_passages(job, corpus_path)
        store = PassageStore(job.folder)
        num_shards = -(-len(store) // shard_rows)
        forecast = Forecast(
            num_passages=len(store),
            dim=encoder.dim,
            format=number_format,
            corpus_bytes=corpus_path.stat().st_size,
            passages_per_s=None,
        )
        if on_forecast is not None:
            on_forecast(forecast)
        row_N = _rows(store, embeddings, ids, ids_path)
        check_disk(job.folder, forecast.vector_bytes)
        for number in range(num_shards):
            if job.shard(number) is None:
                rows = row_N[number * shard_rows : (number + 1) * shard_rows]
                order = np.argsort(rows)  # the file is read forward
                values_ND = np.empty((len(rows), encoder.dim), dtype=np.float32)
                values_ND[order] = embeddings[rows[order]]
                _check_finite(values_ND, rows, embeddings_path)
                shard = write_shard(job.vectors_dir, number, values_ND, number_format)
                job.mark_shard(number, shard)
            if on_progress is not None:
                on_progress(min((number + 1) * shard_rows, len(store)), len(store))
        finish_index(
            job, num_shards, encoder=encoder, settings=settings,
            seconds=time.monotonic() - start, inputs=[corpus_path], encoder_path=encoder_path,
        )  # fmt: skip
    return read_manifest(out_dir)


def _rows(store: PassageStore, embeddings: np.ndarray, ids: np.ndarray, ids_path: Path) -> Ints:
    """The row of the embeddings for each position of the store."""
    row_N = np.full(len(store), -1, dtype=np.int64)
    for first in range(0, len(ids), _LOOKUP_IDS):
        numbers = ids[first : first + _LOOKUP_IDS].tolist()
        for place, position in enumerate(store.find(list(map(str, numbers)))):
            row, number = first + place, numbers[place]
            if position is None:
                raise DataError(
                    f"{ids_path}: row {row} is of passage {str(number)!r}, which is not in the "
                    "corpus; name the corpus that was encoded, with its ids as doc_id"
                )
            if row_N[position] < 0:
                row_N[position] = row
            else:
                _check_same(embeddings, int(row_N[position]), row, number, ids_path)
    missing = np.flatnonzero(row_N < 0)
    if len(missing):
        doc_id = store.doc_id(int(missing[0]))
        raise DataError(
            f"{ids_path}: {len(missing)} passages of the corpus have no embedding, such as "
            f"{doc_id!r}; merge the files of all processes, or encode again"
        )
    return row_N


def _check_same(embeddings: np.ndarray, first: int, again: int, number: int, path: Path) -> None:
    one, other = embeddings[first].astype(np.float64), embeddings[again].astype(np.float64)
    if not np.linalg.norm(one - other) <= _SAME * np.linalg.norm(one):
        raise DataError(
            f"{path}: rows {first} and {again} are both of passage {number} and differ; which one "
            "is right cannot be known: encode again"
        )


def _check_finite(values_ND: npt.NDArray[np.float32], rows: Ints, path: Path) -> None:
    finite = np.isfinite(values_ND).all(axis=1)
    if not finite.all():
        row = int(rows[int(np.argmin(finite))])
        raise DataError(f"{path}: row {row} holds numbers that are not finite; encode again")
