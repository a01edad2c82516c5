"""The search engine that a command was pointed at: an index folder, or a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import ConfigError, DependencyError
from convsearch.retrieval import Retriever

_READY_TIMEOUT_S = 5.0


@contextmanager
def open_retriever(
    *, index: Path | None = None, url: str | None = None, encoder: Path | None = None
) -> Iterator[Retriever]:
    """Opens exactly one of the two. encoder: folder of the query encoder of a dense index.

    Raises ConfigError for none or both, and what the index or the server raises.
    """
    if (index is None) == (url is None):
        raise ConfigError(
            'name the search engine: --index with a folder made by "convsearch index", or '
            "--retriever-url with the address of a server"
        )
    if index is not None:
        yield _load(index, encoder)
    elif url is not None:
        from convsearch.retrieval.client import RetrieverClient

        with RetrieverClient(url) as client:
            client.wait_ready(_READY_TIMEOUT_S)  # its retries are for a server that was there
            yield client


def _load(index: Path, encoder: Path | None) -> Retriever:
    try:
        from retriever_server.server import ServerSettings, load_backend
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run pip install 'convsearch[retriever]'"
        ) from error
    backend, _ = load_backend(ServerSettings(index_path=index, encoder_path=encoder))
    return backend
