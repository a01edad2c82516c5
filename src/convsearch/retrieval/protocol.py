"""The one interface every engine implements: in memory, in the server, and behind the client."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from convsearch.types import Hit, Passage


@runtime_checkable
class Retriever(Protocol):
    """A search engine over a fixed corpus. Results are by position: entry i answers query i.

    Nothing is keyed by query text or query id, so one question rewritten eight ways gets eight
    answers. All methods may be called from several threads.
    """

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """Rank of the best gold passage of each query, 1-based; None where it is not in the topk.

        golds: passage ids, at least one for each query. Ties are broken by doc_id, ascending.
        A query without any known word matches nothing and has rank None.
        Raises DataError for a gold id that is not in the corpus.
        """
        ...

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """The best passages of each query, best first, at most topk; the same order as `ranks`."""
        ...

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """The passages with these ids. Raises DataError for an unknown id."""
        ...
