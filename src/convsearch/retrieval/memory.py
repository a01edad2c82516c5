"""BM25 over passages held in memory, in plain Python: for tests, examples and toy corpora.

Lucene's formula (idf `log(1 + (N - df + .5) / (df + .5))`, no `k1 + 1` in the numerator) with exact
passage lengths. Written for reading, and as a second opinion on the server's engine, with which it
shares no code; it walks over every matching passage of every query.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from convsearch.errors import DataError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage

_WORD = re.compile(r"\w+")


def simple_terms(text: str) -> list[str]:
    """Lower-cased words; no stop words, no stemming."""
    return _WORD.findall(text.lower())


class InMemoryRetriever:
    """A `Retriever` over a handful of passages."""

    def __init__(
        self,
        passages: Iterable[Passage],
        k1: float = 0.9,
        b: float = 0.4,
        *,
        analyze: Callable[[str], list[str]] = simple_terms,
    ) -> None:
        """Raises DataError where two passages share an id, or there is none."""
        self._passages: dict[str, Passage] = {}
        for passage in passages:
            if passage.doc_id in self._passages:
                raise DataError(f"doc_id {passage.doc_id!r} occurs twice; ids must be unique")
            self._passages[passage.doc_id] = passage
        if not self._passages:
            raise DataError("the corpus is empty; it must hold at least one passage")
        self._analyze = analyze
        self._weights = self._index(k1, b)
        digest = hashlib.sha256(repr((k1, b, list(self._passages.values()))).encode())
        self.info = IndexInfo(
            engine="memory", num_passages=len(self._passages), fingerprint=digest.hexdigest()
        )

    def _index(self, k1: float, b: float) -> dict[str, dict[str, float]]:
        """term -> doc_id -> weight, each rounded to single precision as index files hold it."""
        counts = {
            doc_id: Counter(self._analyze(f"{passage.title} {passage.text}"))
            for doc_id, passage in self._passages.items()
        }
        lengths = {doc_id: counted.total() for doc_id, counted in counts.items()}
        mean_length = sum(lengths.values()) / len(lengths)
        df = Counter(term for counted in counts.values() for term in counted)
        weights: dict[str, dict[str, float]] = {term: {} for term in df}
        for doc_id, counted in counts.items():
            for term, tf in counted.items():
                idf = np.float32(math.log(1 + (len(counts) - df[term] + 0.5) / (df[term] + 0.5)))
                norm = k1 * ((1 - b) + b * lengths[doc_id] / mean_length)
                weights[term][doc_id] = float(np.float32(float(idf) * (tf / (norm + tf))))
        return weights

    def _ranking(self, query: str) -> list[Hit]:
        """Every passage that shares a term with the query, best first, ties by doc_id."""
        scores: dict[str, float] = {}
        for term, count in sorted(Counter(self._analyze(query)).items()):
            for doc_id, weight in self._weights.get(term, {}).items():
                scores[doc_id] = scores.get(doc_id, 0.0) + count * weight
        hits = [Hit(doc_id=doc_id, score=float(np.float32(s))) for doc_id, s in scores.items()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`."""
        check_rank_call(queries, golds, topk)
        self.passages([doc_id for ids in golds for doc_id in ids])
        found: list[int | None] = []
        for query, ids in zip(queries, golds, strict=True):
            ranked = enumerate(self._ranking(query)[:topk], 1)
            found.append(next((rank for rank, hit in ranked if hit.doc_id in ids), None))
        return found

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        return [self._ranking(query)[:topk] for query in queries]

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        for doc_id in doc_ids:
            if doc_id not in self._passages:
                raise DataError(f"passage {doc_id!r} is not in the corpus; check the gold ids")
        return [self._passages[doc_id] for doc_id in doc_ids]
