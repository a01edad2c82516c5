"""Approximate dense search: a FAISS index proposes, exact scores order what it proposes.

Ranks are places in the lists, so both agree. A passage FAISS does not propose has no rank, which is
an error of the retriever and not of the query; how often that happens was measured when the index
was made.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.backends.dense import DenseBackend, has_word
from retriever_server.dense.ann import ANN, AnnIndex
from retriever_server.indexing.dense import ids_at
from retriever_server.indexing.dense_job import VECTORS

ENGINE = "dense-ann"
_LEAST_DEPTH = 100
"""Hits fetched at least, so that the order of a short list is that of a longer one."""


class AnnBackend:
    """A `Retriever` over a dense index and a FAISS index beside it. Safe for threads."""

    def __init__(self, exact: DenseBackend, index: AnnIndex, fingerprint: str = "") -> None:
        """exact: over the same passages. fingerprint: of the FAISS index."""
        self._exact, self._index = exact, index
        self.store = exact.store
        both = hashlib.sha256(f"{exact.info.fingerprint} {fingerprint}".encode()).hexdigest()
        self.info: IndexInfo = replace(exact.info, engine=ENGINE, fingerprint=both)

    @classmethod
    def load(cls, index_dir: Path, encoder_path: Path) -> "AnnBackend":
        """See `DenseBackend.load`. The vectors may be larger than memory: few are read."""
        index, _, fingerprint = AnnIndex.load(index_dir / ANN, index_dir / VECTORS)
        exact = DenseBackend.load_exact(index_dir, encoder_path, from_disk=True)
        return cls(exact, index, fingerprint)

    @property
    def device(self) -> str:
        """Of the query encoder."""
        return self._exact.device

    def with_query_length(self, max_length: int) -> "AnnBackend":
        """The same engine with another cut of queries, in tokens."""
        other = copy.copy(self)
        other._exact = self._exact.with_query_length(max_length)
        return other

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`."""
        check_rank_call(queries, golds, topk)
        positions = [set(self.store.positions(ids)) for ids in golds]
        ranks: list[int | None] = []
        for (found, _), gold in zip(self._lists(queries, topk), positions, strict=True):
            places = [place for place, position in enumerate(found, 1) if position in gold]
            ranks.append(places[0] if places else None)
        return ranks

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        return [
            [
                Hit(doc_id=doc_id, score=score)
                for doc_id, score in zip(ids_at(self.store, positions), scores, strict=True)
            ]
            for positions, scores in self._lists(queries, topk)
        ]

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self._exact.passages(doc_ids)

    def _lists(self, queries: Sequence[str], topk: int) -> list[tuple[list[int], list[float]]]:
        """Positions and scores for each query, best first; none for a query without a word."""
        lists: list[tuple[list[int], list[float]]] = [([], []) for _ in queries]
        asked = [i for i, query in enumerate(queries) if has_word(query)]
        if not asked:
            return lists
        vectors_QD = self._exact.encode([queries[i] for i in asked])
        found = self._index.lists(
            self._exact.vectors,
            self.store.id_order_N,
            vectors_QD,
            max(topk, _LEAST_DEPTH),
        )
        for i, (positions, scores) in zip(asked, found, strict=True):
            lists[i] = (positions[:topk].tolist(), scores[:topk].tolist())
        return lists
