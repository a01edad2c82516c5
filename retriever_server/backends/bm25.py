"""BM25 over an index folder: exact ranks and lists in Lucene's arithmetic, without Java."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError, DependencyError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.manifest import check_files, fact, index_info, read_manifest
from retriever_server.store import PassageStore

if TYPE_CHECKING:
    from retriever_server.bm25.arrays import Bm25Arrays

_TASKS_PER_THREAD = 8
"""Pieces a batch is cut into for each thread, so that none waits long for another."""
_CACHE_TERMS = 500_000
"""Terms whose number is remembered, some 60 MB."""

Terms = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


class _Batch(NamedTuple):
    """Terms of query q at `query_at[q]:query_at[q + 1]`, the least valuable first."""

    terms: Terms
    weights: Weights
    query_at: npt.NDArray[np.int64]


class Bm25Backend:
    """A `Retriever` over the files of `build_bm25_index`. Safe for threads; keeps no call.

    A term that occurs n times in the query counts n times. Scores, ranks and ties are those of
    Lucene with Anserini's order: neither the order of the words nor the company of other queries
    can change one.
    """

    def __init__(
        self,
        *,
        info: IndexInfo,
        store: PassageStore,
        analyzer: Callable[[str], list[str]],
        arrays: "Bm25Arrays",
        inverse_norms: Weights,
        num_searchable: int,
        threads: int | None = None,
    ) -> None:
        """inverse_norms: by code of length; num_searchable: passages with at least one term;
        threads: that share a batch, by default one for each processor."""
        self.info = info
        self.store = store
        self._analyze = analyzer
        self._arrays = arrays
        self._inverse_norms = inverse_norms
        self._num_searchable = num_searchable
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bm25")
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, index_dir: Path, *, threads: int | None = None) -> "Bm25Backend":
        """Opens an index folder, its arrays memory-mapped.

        Raises MissingFileError, DataError or DependencyError, each with the next step.
        """
        manifest = read_manifest(index_dir)
        if manifest.get("engine") != "bm25":
            raise DataError(
                f"{index_dir}: this is a {manifest.get('engine')} index; choose that retriever, or "
                'build a BM25 index with "convsearch index"'
            )
        try:
            from retriever_server.analyzer import ANALYZER, Analyzer
            from retriever_server.bm25.arrays import open_arrays
            from retriever_server.bm25.similarity import inverse_norms
            from retriever_server.indexing.bm25 import LAYOUT
        except ImportError as error:
            raise DependencyError(
                f"{error.name} is not installed; run pip install 'convsearch[retriever]'"
            ) from None
        for name, ours in (("analyzer", ANALYZER), ("layout", LAYOUT)):
            if fact(manifest, index_dir, name, str) != ours:
                raise DataError(
                    f"{index_dir}: made with {name} {manifest[name]!r}, this program has "
                    f'{ours!r}; rebuild the index with "convsearch index"'
                )
        check_files(manifest, index_dir)
        arrays, store = open_arrays(index_dir), PassageStore(index_dir)
        if len(arrays.lengths) != len(store):
            raise DataError(
                f"{index_dir}: {len(store)} passages but {len(arrays.lengths)} lengths; rebuild "
                'the index with "convsearch index"'
            )
        num_searchable = fact(manifest, index_dir, "num_searchable", int)
        norms = inverse_norms(
            fact(manifest, index_dir, "k1", float),
            fact(manifest, index_dir, "b", float),
            fact(manifest, index_dir, "num_tokens", int),
            num_searchable,
        )
        return cls(
            info=index_info(manifest, index_dir),
            store=store,
            analyzer=Analyzer(),
            arrays=arrays,
            inverse_norms=norms,
            num_searchable=num_searchable,
            threads=threads,
        )

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`. Counts what comes before the best gold passage; makes no list."""
        from retriever_server.bm25.kernels import count_before

        check_rank_call(queries, golds, topk)
        positions = self.store.positions([doc_id for ids in golds for doc_id in ids])
        golds_at = np.cumsum([0, *map(len, golds)])
        batch = self._batch(queries)
        ranks = np.zeros(len(queries), dtype=np.int64)
        gold_positions = np.asarray(positions, dtype=np.int64)

        def count(first: int, last: int) -> None:
            count_before(
                self._arrays, self._inverse_norms, self.store.id_order_N, batch.terms,
                batch.weights, batch.query_at, gold_positions, golds_at, topk, first, last, ranks,
            )  # fmt: skip

        self._share(count, len(queries))
        return [rank or None for rank in ranks.tolist()]

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        from retriever_server.bm25.kernels import best_of

        check_topk(topk)
        depth = min(topk, len(self.store))
        batch = self._batch(queries)
        found: list[list[Hit]] = [[] for _ in queries]

        def search(first: int, last: int) -> None:
            docs = np.empty(depth, dtype=np.int64)
            scores = np.empty(depth, dtype=np.float32)
            for query in range(first, last):
                own = slice(batch.query_at[query], batch.query_at[query + 1])
                count = best_of(
                    self._arrays, self._inverse_norms, self.store.id_order_N, batch.terms[own],
                    batch.weights[own], depth, docs, scores,
                )  # fmt: skip
                order = np.lexsort((self.store.id_order_N[docs[:count]], -scores[:count]))
                ids = self.store.doc_ids(docs[order])
                found[query] = [
                    Hit(doc_id=doc_id, score=score)
                    for doc_id, score in zip(ids, scores[order].tolist(), strict=True)
                ]

        self._share(search, len(queries))
        return found

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self.store.read(doc_ids)

    def _share(self, work: Callable[[int, int], None], num_queries: int) -> None:
        """Runs `work(first, last)` over all queries; what is large, on all threads."""
        step = max(1, -(-num_queries // (self._threads * _TASKS_PER_THREAD)))
        firsts = range(0, num_queries, step)
        if len(firsts) <= 1:
            work(0, num_queries)
            return
        for done in self._pool.map(
            lambda first: work(first, min(first + step, num_queries)), firsts
        ):
            assert done is None

    def _batch(self, queries: Sequence[str]) -> _Batch:
        """The known terms of each query and their weights `count * idf`, as Lucene boosts them."""
        from retriever_server.bm25.similarity import idf

        counted = [Counter(self._analyze(query)) for query in queries]
        numbers = self._numbers_of({term for counts in counted for term in counts})
        known = [
            [(number, count) for term, count in counts.items() if (number := numbers[term]) >= 0]
            for counts in counted
        ]
        sizes = np.asarray([len(terms) for terms in known], dtype=np.int64)
        flat = np.asarray([pair for terms in known for pair in terms], dtype=np.int64).reshape(
            -1, 2
        )
        terms = flat[:, 0]
        df = self._arrays.term_postings[terms + 1] - self._arrays.term_postings[terms]
        weights = flat[:, 1].astype(np.float32) * idf(df, self._num_searchable)
        query = np.repeat(np.arange(len(queries)), sizes)
        order = np.lexsort((terms, weights / np.maximum(df, 1), query))
        return _Batch(terms[order], weights[order], np.concatenate([[0], np.cumsum(sizes)]))

    def _numbers_of(self, terms: set[str]) -> dict[str, int]:
        """Number of each term in the index, -1 where it is not in it."""
        from retriever_server.bm25.terms import find_terms, term_keys

        with self._lock:
            numbers = {term: self._numbers[term] for term in terms if term in self._numbers}
        new = [term for term in terms if term not in numbers]
        if new:
            found = find_terms(self._arrays.keys, term_keys(new)).tolist()
            fresh = dict(zip(new, found, strict=True))
            numbers |= fresh
            with self._lock:
                if len(self._numbers) > _CACHE_TERMS:
                    self._numbers.clear()
                self._numbers |= fresh
        return numbers
