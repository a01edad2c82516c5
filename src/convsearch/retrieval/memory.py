"""BM25 over passages held in memory, in plain Python: for tests, examples and toy corpora.

Lucene's formula and arithmetic: idf `log(1 + (N - df + .5) / (df + .5))` over the passages that
have a term, no `k1 + 1` in the numerator, lengths of 40 and more rounded down to four leading bits,
single precision. Written for reading, and as a second opinion on the server's engine, with which it
shares no code; it walks over every matching passage of every query.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from convsearch.errors import DataError
from convsearch.retrieval.checks import check_rank_call, check_topk, refuse_unknown
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage

_WORD = re.compile(r"\w+")


def simple_terms(text: str) -> list[str]:
    """Lower-cased words; no stop words, no stemming."""
    return _WORD.findall(text.lower())


def _rounded_length(length: int) -> int:
    """What one byte keeps of a length (Lucene's `SmallFloat.intToByte4`)."""
    if length < 40:
        return length
    shift = (length - 24).bit_length() - 4
    return 24 + ((length - 24) >> shift << shift)


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
        self._postings = self._index(k1, b)
        digest = hashlib.sha256(repr((k1, b, list(self._passages.values()))).encode())
        self.info = IndexInfo(
            engine="memory", num_passages=len(self._passages), fingerprint=digest.hexdigest()
        )

    def _index(self, k1: float, b: float) -> dict[str, dict[str, tuple[np.float32, np.float32]]]:
        """term -> doc_id -> idf and divisor: a term with weight w earns `w - w / divisor`."""
        counts = {
            doc_id: Counter(self._analyze(f"{passage.title} {passage.text}"))
            for doc_id, passage in self._passages.items()
        }
        lengths = {doc_id: counted.total() for doc_id, counted in counts.items()}
        searchable = sum(length > 0 for length in lengths.values())
        mean_length = np.float32(sum(lengths.values()) / max(1, searchable))
        df = Counter(term for counted in counts.values() for term in counted)
        postings: dict[str, dict[str, tuple[np.float32, np.float32]]] = {term: {} for term in df}
        one, k1_f, b_f = np.float32(1), np.float32(k1), np.float32(b)
        for doc_id, counted in counts.items():
            length = np.float32(_rounded_length(lengths[doc_id]))
            with np.errstate(divide="ignore"):
                inverse = one / (k1_f * ((one - b_f) + b_f * length / mean_length))
            for term, tf in counted.items():
                idf = math.log(1 + (searchable - df[term] + 0.5) / (df[term] + 0.5))
                postings[term][doc_id] = np.float32(idf), one + np.float32(tf) * inverse
        return postings

    def _ranking(self, query: str) -> list[Hit]:
        """Every passage that shares a term with the query, best first, ties by doc_id."""
        scores: dict[str, float] = {}
        for term, count in sorted(Counter(self._analyze(query)).items()):
            for doc_id, (idf, divisor) in self._postings.get(term, {}).items():
                weight = np.float32(count) * idf
                scores[doc_id] = scores.get(doc_id, 0.0) + float(weight - weight / divisor)
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
        refuse_unknown([doc_id for doc_id in doc_ids if doc_id not in self._passages])
        return [self._passages[doc_id] for doc_id in doc_ids]
