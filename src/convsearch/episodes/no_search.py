"""The search engine of strategies that never search."""

from collections.abc import Sequence

from convsearch.errors import ConfigError
from convsearch.types import Hit, Passage

_WHY = "this strategy does not search; name --index or --retriever-url for one that does"


class NoSearch:
    """A `Retriever` that refuses every call."""

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """Raises ConfigError."""
        raise ConfigError(_WHY)

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """Raises ConfigError."""
        raise ConfigError(_WHY)

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """Raises ConfigError."""
        raise ConfigError(_WHY)
