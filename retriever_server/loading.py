"""Opens an index folder with the engine that made it, and the qrels that belong to it."""

from convsearch.errors import ConfigError
from convsearch.files import Qrels, read_qrels
from convsearch.retrieval.protocol import Retriever
from retriever_server.manifest import read_manifest
from retriever_server.memory import check_memory, index_bytes
from retriever_server.settings import IndexSettings

RETRIEVERS = ("bm25", "ance")


def load_backend(settings: IndexSettings) -> tuple[Retriever, Qrels | None]:
    """Opens the index and the qrels and checks that they belong together.

    Raises ConfigError where they do not, where the engine is not the one asked for, or where the
    index does not fit into memory (before any of it is loaded), and what the engine raises.
    """
    engine = str(read_manifest(settings.index_path).get("engine"))
    name = settings.retriever_name
    if name is not None and (name == "bm25") != (engine == "bm25"):
        raise ConfigError(
            f"--retriever_name {name} does not fit {settings.index_path}, a {engine} index; name "
            'the other retriever or build the index it needs with "convsearch index"'
        )
    check_memory(f"{settings.index_path} ({engine})", index_bytes(settings.index_path))
    if engine == "bm25":
        from retriever_server.backends.bm25 import Bm25Backend

        backend = Bm25Backend.load(settings.index_path)
    else:
        from retriever_server.backends.dense import DenseBackend

        if settings.encoder_path is None:
            raise ConfigError(
                f"{settings.index_path} is a dense index; name the folder of its query encoder "
                "with --encoder_path"
            )
        backend = DenseBackend.load(settings.index_path, settings.encoder_path)
    if settings.trec_path is None:
        return backend, None
    qrels = read_qrels(settings.trec_path)
    golds = {doc for docs in qrels.values() for doc, relevance in docs.items() if relevance > 0}
    unknown = sorted(golds - set(backend.store.doc_ids))
    if unknown:
        raise ConfigError(
            f"{settings.trec_path}: {len(unknown)} of {len(golds)} gold passages are not in the "
            f"index {settings.index_path}, the first is {unknown[0]!r}; use the qrels and the "
            "corpus of the same data set"
        )
    return backend, qrels
