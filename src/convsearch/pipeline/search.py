"""The search engine that a command was pointed at: an index folder, or a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.errors import ConfigError, DependencyError, install_command
from convsearch.retrieval import Retriever
from convsearch.retrieval.identity import engine_info

_READY_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Which search engine answers: an index in this process, or a server."""

    index: Path | None = None
    """Folder of an index."""
    url: str | None = None
    """Address of a server instead."""
    encoder: Path | None = None
    """Folder of the query encoder of a dense index."""
    fuse_with: Path | None = None
    """Second index of the same corpus; the two are fused by reciprocal ranks."""
    k1: float | None = None
    """BM25 of a Lucene index, which can be searched with any; None takes what it was built with."""
    b: float | None = None
    """As k1."""


@contextmanager
def open_retriever(
    *,
    index: Path | None = None,
    url: str | None = None,
    encoder: Path | None = None,
    fuse_with: Path | None = None,
    k1: float | None = None,
    b: float | None = None,
) -> Iterator[Retriever]:
    """Opens an engine, and closes it; the arguments are the fields of SearchOptions.

    Raises ConfigError for none or both of index and url and for what a server has settled itself,
    and what the index or the server raises.
    """
    if (index is None) == (url is None):
        raise ConfigError(
            'name the search engine: --index with a folder made by "convsearch index", or '
            "--retriever-url with the address of a server"
        )
    if index is not None:
        yield _load(index, encoder, fuse_with, k1, b)
    elif url is not None:
        if any(value is not None for value in (encoder, fuse_with, k1, b)):
            raise ConfigError(
                "a server has chosen its encoder, its second index, k1 and b when it was started; "
                "leave them out beside its address"
            )
        from convsearch.retrieval.client import RetrieverClient

        with RetrieverClient(url) as client:
            client.wait_ready(_READY_TIMEOUT_S)  # its retries are for a server that was there
            yield client


def search_settings(options: SearchOptions, retriever: Retriever) -> dict[str, object]:
    """What a passport says of a search: what was asked for, and what the engine, here or behind a
    server, says of itself; `engine` is None where it says nothing.

    Raises RetrieverError where a server does not answer.
    """
    info = engine_info(retriever)
    return {
        "retriever": str(options.index or options.url),
        "fuse_with": str(options.fuse_with) if options.fuse_with else None,
        "k1": options.k1,
        "b": options.b,
        "engine": asdict(info) if info else None,
    }


def with_query_tokens(retriever: Retriever, max_tokens: int | None) -> Retriever:
    """The same engine, reading the first max_tokens tokens of a query where it is dense; BM25 reads
    all. None leaves the engine's own cut. Raises ConfigError for a limit below 1."""
    if max_tokens is None:
        return retriever
    if max_tokens < 1:
        raise ConfigError(f"a query needs 1 token or more; got {max_tokens}")
    cut = getattr(retriever, "with_query_length", None)
    return retriever if cut is None else cut(max_tokens)


def _load(
    index: Path, encoder: Path | None, fuse_with: Path | None, k1: float | None, b: float | None
) -> Retriever:
    try:
        from retriever_server.loading import load_backend
        from retriever_server.manifest import engine_of
        from retriever_server.settings import IndexSettings
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run {install_command('retriever')}"
        ) from error
    settings = IndexSettings(
        index_path=index, encoder_path=encoder, fuse_with=fuse_with, k1=k1, b=b
    )
    if encoder is not None and "dense" not in map(engine_of, filter(None, (index, fuse_with))):
        raise ConfigError(
            f"{encoder}: an encoder is for dense indexes and {index} is none; leave it out, or "
            "name a dense index"
        )
    backend, _ = load_backend(settings)
    return backend
