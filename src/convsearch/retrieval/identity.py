"""Which index is searched, wherever the engine runs: a part of what outputs are made of."""

from dataclasses import asdict

from convsearch.retrieval.info import IndexInfo, info_of
from convsearch.retrieval.protocol import Retriever


def engine_info(retriever: Retriever) -> IndexInfo | None:
    """`info_of` an engine in this process, or what a server says of its own.

    Raises RetrieverError where a server does not answer.
    """
    from convsearch.retrieval.client import RetrieverClient

    if isinstance(retriever, RetrieverClient):
        return retriever.read_info()
    return info_of(retriever)


def index_identity(retriever: Retriever, address: object) -> dict[str, object] | str:
    """What the engine says of its index; of one that says nothing its address, which is then all
    that is known. Raises as `engine_info`."""
    info = engine_info(retriever)
    return str(address) if info is None else asdict(info)
