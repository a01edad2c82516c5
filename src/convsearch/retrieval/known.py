"""Which passage ids a search engine does not know, asked through what every engine can do."""

from collections.abc import Sequence

from convsearch.errors import RefusedError, UnknownPassageError
from convsearch.retrieval.protocol import Retriever

CHUNK_IDS = 10_000
"""Ids of one question: less than a megabyte of a request, whatever the ids are."""
_QUERY = "passage"
"""Its ranks are not looked at."""


def unknown_ids(retriever: Retriever, doc_ids: Sequence[str]) -> list[str] | None:
    """Those of the ids that the engine does not know, each once, in their order.

    None where a server refuses ids and does not say which, as servers of other programs may.
    Raises RetrieverError where a server does not answer.
    """
    ids = list(dict.fromkeys(doc_ids))
    unknown: list[str] = []
    for start in range(0, len(ids), CHUNK_IDS):
        try:
            retriever.ranks([_QUERY], [ids[start : start + CHUNK_IDS]], 1)
        except UnknownPassageError as error:
            unknown += dict.fromkeys(error.doc_ids)
        except RefusedError as error:
            if not error.unknown_ids:
                return None
            unknown += dict.fromkeys(error.unknown_ids)
    return unknown
