"""Which shard holds which passages, and what opens them on either side."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from convsearch import __version__
from convsearch.errors import ConfigError, DependencyError, install_command
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.manifest import index_info, read_manifest
from retriever_server.memory import check_memory, index_bytes
from retriever_server.parts import Golds, Part, Rows, Whole, even_rows
from retriever_server.settings import IndexSettings


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """What a shard opens of one index."""

    index_path: Path
    """The same on every machine."""
    engine: str
    fingerprint: str
    """Of the index that the front has open; a shard refuses any other."""
    rows: Rows
    num_passages: int
    """Of the whole index."""
    first_query: object
    """In the form of the engine: a shard answers it before it counts as started, because compiling
    and loading take seconds."""
    version: str = __version__
    """Of this program; a shard of another one refuses."""


def open_whole(index_path: Path, engine: str, settings: IndexSettings) -> Whole:
    """The engine as the front needs it: nothing of the index is read that is not asked for.

    Raises ConfigError for an engine that has no parts, and what opening raises.
    """
    if engine == "bm25":
        return Bm25Backend.load(index_path)
    if engine != "dense":
        raise ConfigError(
            f"{index_path}: a {engine} index cannot be served in shards; build a BM25 or dense "
            'index with "convsearch index", or leave out --shards'
        )
    from retriever_server.backends.dense import DenseBackend
    from retriever_server.dense.ann import ANN

    if (index_path / ANN).is_dir():
        raise ConfigError(
            f"{index_path / ANN}: an approximate index cannot be served in shards; delete this "
            "folder to search exactly, or leave out --shards"
        )
    assert settings.encoder_path is not None
    return DenseBackend.load_exact(index_path, settings.encoder_path, from_disk=True, verify=False)


def cut(engine: Whole, shards: int) -> list[Rows]:
    """The passages of each shard. Raises ConfigError where the index has not enough of them."""
    starts = engine.pieces()
    if len(starts) < shards:
        raise ConfigError(
            f"{engine.store.folder}: {len(engine.store)} passages are {len(starts)} block(s), "
            f"which {shards} shards cannot share; use --shards {len(starts)} or fewer"
        )
    return even_rows(starts, len(engine.store), shards)


def open_part(spec: PartSpec, *, threads: int) -> Part:
    """What a shard searches, tried once. Only its own passages are read, or pages with them.

    Raises ConfigError where index or program differ from those of the front, or memory is short,
    and what opening raises.
    """
    if spec.version != __version__:
        raise ConfigError(
            f"this machine has version {__version__} of convsearch, the server {spec.version}; "
            "install the same on all of them"
        )
    found = index_info(read_manifest(spec.index_path), spec.index_path).fingerprint
    if found != spec.fingerprint:
        raise ConfigError(
            f"{spec.index_path}: not the index that the server has open; copy it to this machine "
            "again, and start the server anew where it was rebuilt"
        )
    part = _bm25_part(spec, threads) if spec.engine == "bm25" else _dense_part(spec, threads)
    nothing = Golds(score_Q=np.zeros(1), order_Q=np.zeros(1, dtype=np.int64))
    part.count_before(spec.first_query, nothing, 1)
    part.best(spec.first_query, 1)
    return part


def _bm25_part(spec: PartSpec, threads: int) -> Part:
    share = spec.rows.size / spec.num_passages
    needed = int(index_bytes(spec.index_path) * share)
    check_memory(f"{spec.index_path} ({100 * share:.3g} % of it)", needed)
    return Bm25Backend.load(spec.index_path).part(spec.rows, threads=threads)


def _dense_part(spec: PartSpec, threads: int) -> Part:
    try:
        from retriever_server.dense.exact_rank import RankEngine
        from retriever_server.dense.part import DensePart, choose_lists
        from retriever_server.dense.units import choose_filters
        from retriever_server.dense.vectors import Vectors
        from retriever_server.indexing.dense_job import VECTORS
        from retriever_server.store import PassageStore
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run {install_command('retriever')}"
        ) from None
    vectors = Vectors(spec.index_path / VECTORS, verify=False, rows=spec.rows)
    check_memory(f"{spec.index_path} (its rows {spec.rows.first} on)", vectors.num_bytes)
    vectors.verify()
    order_N = cast(np.ndarray, PassageStore(spec.index_path).id_order_N)
    filters = choose_filters(vectors, threads)
    engine = RankEngine(vectors, order_N, filters, threads=threads)
    return DensePart(engine, choose_lists(engine))
