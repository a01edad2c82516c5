"""Opens an index folder with the engine that made it, and the qrels that belong to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from convsearch.errors import ConfigError
from convsearch.files import Qrels, read_qrels
from convsearch.retrieval.protocol import Retriever
from retriever_server.backends.hybrid import HybridBackend
from retriever_server.backends.lucene import LuceneBackend
from retriever_server.manifest import engine_of, lists_files, refuse_damaged
from retriever_server.memory import check_memory, index_bytes
from retriever_server.settings import IndexSettings

if TYPE_CHECKING:
    from retriever_server.shards.backend import ShardedBackend

RETRIEVERS = ("bm25", "ance")


class Opener(Protocol):
    """Opens an index folder of this engine (`bm25`, `dense` or `lucene`) in shards."""

    def __call__(
        self, index_path: Path, engine: str, settings: IndexSettings
    ) -> "ShardedBackend": ...


def load_backend(
    settings: IndexSettings, *, open_index: Opener | None = None
) -> tuple[Retriever, Qrels | None]:
    """Opens the index or the two to be fused, and the qrels, and checks that they belong together.

    open_index: None opens it in this process.
    Raises ConfigError where they do not, where the engine is not the one asked for, or where the
    index does not fit into memory (before any of it is loaded), and what the engine raises.
    """
    folders = settings.folders
    engines = [engine_of(folder) for folder in folders]
    _check_fit(settings, engines)
    for folder, engine in zip(folders, engines, strict=True):
        if settings.verify and (engine != "lucene" or lists_files(folder)):
            refuse_damaged(folder)
    open_one = open_index or _open
    opened = [open_one(*pair, settings) for pair in zip(folders, engines, strict=True)]
    backend = opened[0] if len(opened) == 1 else HybridBackend(*opened)
    if settings.trec_path is None:
        return backend, None
    qrels = read_qrels(settings.trec_path)
    golds = {doc for docs in qrels.values() for doc, relevance in docs.items() if relevance > 0}
    ids = opened[0] if isinstance(opened[0], LuceneBackend) else opened[0].store
    unknown = sorted(ids.unknown(sorted(golds)))
    if unknown:
        raise ConfigError(
            f"{settings.trec_path}: {len(unknown)} of {len(golds)} gold passages are not in the "
            f"index {settings.index_path}, the first is {unknown[0]!r}; use the qrels and the "
            "corpus of the same data set"
        )
    return backend, qrels


def _check_fit(settings: IndexSettings, engines: list[str]) -> None:
    name = settings.retriever_name
    if name is not None and (name == "bm25") != (engines[0] in ("bm25", "lucene")):
        raise ConfigError(
            f"--retriever_name {name} does not fit {settings.index_path}, a {engines[0]} index; "
            'name the other retriever or build the index it needs with "convsearch index"'
        )
    lucene_only = (settings.k1, settings.b, settings.java_heap)
    if "lucene" not in engines and lucene_only != (None, None, None):
        raise ConfigError(
            f"--k1, --b and --java_heap are for Lucene indexes and {settings.index_path} is a "
            f"{engines[0]} index; leave them out, or build the index with the k1 and b it should "
            "have"
        )
    if "dense" in engines and settings.encoder_path is None:
        raise ConfigError(
            f"{settings.index_path if engines[0] == 'dense' else settings.fuse_with} is a dense "
            "index; name the folder of its query encoder (--encoder, of the server --encoder_path)"
        )


def _open(index_path: Path, engine: str, settings: IndexSettings):
    if engine == "lucene":
        return LuceneBackend.load(
            index_path, k1=settings.k1, b=settings.b, java_heap=settings.java_heap
        )
    if engine == "bm25":
        from retriever_server.backends.bm25 import Bm25Backend

        check_memory(f"{index_path} ({engine})", index_bytes(index_path))
        return Bm25Backend.load(index_path)
    from retriever_server.backends.dense import DenseBackend

    assert settings.encoder_path is not None
    return DenseBackend.load(index_path, settings.encoder_path)
