"""An index in parts, each a run of its passages: what parts compute, and how it adds up.

The order of passages (score falling, then id ascending) does not depend on which of them are looked
at, so how many come before a gold passage is a sum over parts, and the best of all are among the
best of each.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from convsearch.errors import RetrieverError
from convsearch.retrieval.info import IndexInfo
from convsearch.retrieval.protocol import Retriever
from convsearch.types import Hit
from retriever_server.store import PassageStore

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Entry = TypeVar("Entry")


class Rows(NamedTuple):
    """Positions `first` to `end` (exclusive) of an index."""

    first: int
    end: int

    @property
    def size(self) -> int:
        """Passages."""
        return self.end - self.first


@dataclass(frozen=True, kw_only=True)
class Golds:
    """The passage to beat, for each query."""

    score_Q: Doubles
    order_Q: Ints
    """Its place in id order, which decides ties."""

    def pick(self, queries: npt.NDArray[np.intp]) -> "Golds":
        """Those of some queries."""
        return Golds(score_Q=self.score_Q[queries], order_Q=self.order_Q[queries])


class Found(NamedTuple):
    """The best passages of one query, best first."""

    positions: Ints
    scores: Doubles


class Part(Protocol):
    """Some passages of an index. Safe for threads.

    asked: queries in the form of the engine, made by `Whole.asked` of the same index.
    """

    def count_before(self, asked: object, golds: Golds, topk: int) -> Ints:
        """For each query, how many of these passages come before the gold one: exact below topk,
        else topk or more. A query that matches nothing has topk or more."""
        ...

    def best(self, asked: object, topk: int) -> list[Found]:
        """For each query the topk of these passages."""
        ...


class Whole(Retriever, Protocol):
    """An engine whose work can be done in parts."""

    info: IndexInfo
    store: PassageStore

    def pieces(self) -> Ints:
        """First positions of the pieces between which the index may be cut."""
        ...

    def asked(self, queries: Sequence[str]) -> object:
        """Queries in the form that parts take. It can be pickled."""
        ...

    def best_golds(self, asked: object, golds: Sequence[Sequence[str]]) -> Golds:
        """The best gold passage of each query. Raises DataError for an unknown id."""
        ...

    def hits(self, found: Sequence[Found]) -> list[list[Hit]]:
        """Positions as ids."""
        ...


@dataclass(frozen=True)
class Partial(Generic[Entry]):
    """One entry for each query, from a search of perhaps not all passages."""

    entries: list[Entry]
    coverage: float = 1.0
    """Share of the passages that was searched. Below 1, ranks are lower bounds and lists lack
    passages."""


@runtime_checkable
class PartlyAnswering(Protocol):
    """A `Retriever` that can answer while a part of its index is missing."""

    @property
    def coverage(self) -> float:
        """Share of the passages that can be searched now."""
        ...

    def partial_ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> "Partial[int | None]":
        """`Retriever.ranks` over what is there."""
        ...

    def partial_search(self, queries: Sequence[str], topk: int) -> "Partial[list[Hit]]":
        """`Retriever.search` over what is there."""
        ...


class DegradedError(RetrieverError):
    """A part of the index is missing, so there is no answer; it may be back in a moment."""

    def __init__(self, coverage: float) -> None:
        """coverage: see `Partial`."""
        super().__init__(
            f"only {100 * coverage:.3g} % of the passages can be searched now, so the answer would "
            "be wrong; the missing shards are being restarted, try again"
        )
        self.coverage = coverage

    def __reduce__(self) -> tuple[type["DegradedError"], tuple[float]]:
        return DegradedError, (self.coverage,)


def whole(answer: Partial[Entry]) -> list[Entry]:
    """The entries of an answer from all passages. Raises DegradedError for any other."""
    if answer.coverage < 1:
        raise DegradedError(answer.coverage)
    return answer.entries


def ranks_from(counts: Iterable[Ints], topk: int) -> list[int | None]:
    """Ranks from the counts of at least one part, see `Part.count_before`."""
    before_Q: Ints = np.stack(list(counts)).sum(axis=0)
    return [count + 1 if count < topk else None for count in before_Q.tolist()]


def merged(lists: Sequence[Found], id_order_N: npt.NDArray[np.integer], topk: int) -> Found:
    """The topk passages of one query from its lists of at least one part."""
    positions = np.concatenate([found.positions for found in lists])
    scores = np.concatenate([found.scores for found in lists])
    order = np.lexsort((id_order_N[positions], -scores))[:topk]
    return Found(positions[order], scores[order])


def even_rows(starts: Ints, end: int, parts: int) -> list[Rows]:
    """Cuts an index into parts of nearly equal numbers of pieces.

    starts: first position of each piece, at least `parts` of them; end: number of passages.
    """
    edges = [*(int(starts[len(starts) * part // parts]) for part in range(parts)), end]
    return [Rows(*pair) for pair in itertools.pairwise(edges)]
