"""BM25 over an index folder: exact ranks and lists in Lucene's arithmetic, without Java."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError, DependencyError, install_command
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.manifest import check_files, fact, index_info, read_manifest
from retriever_server.parts import Found, Golds, Ints, Rows, ranks_from
from retriever_server.store import PassageStore

if TYPE_CHECKING:
    from retriever_server.bm25.arrays import Bm25Arrays
    from retriever_server.bm25.part import Bm25Part, Bm25Queries

_CACHE_TERMS = 500_000
"""Terms whose number is remembered, some 60 MB."""

Weights = npt.NDArray[np.float32]


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
        from retriever_server.bm25.part import Bm25Part

        self.info = info
        self.store = store
        self._analyze = analyzer
        self._arrays = arrays
        self._inverse_norms = inverse_norms
        self._num_searchable = num_searchable
        self._all = Bm25Part(arrays, inverse_norms, store.id_order_N, threads=threads)
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
                f"{error.name} is not installed; run {install_command('retriever')}"
            ) from None
        for name, ours in (("analyzer", ANALYZER), ("layout", LAYOUT)):
            if fact(manifest, index_dir, name, str) != ours:
                raise DataError(
                    f"{index_dir}: made with {name} {manifest[name]!r}, this program has "
                    f'{ours!r}; rebuild the index with "convsearch index"'
                )
        info = index_info(manifest, index_dir)
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
            info=info,
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
        check_rank_call(queries, golds, topk)
        asked = self.asked(queries)
        counts = self._all.count_before(asked, self.best_golds(asked, golds), topk)
        return ranks_from([counts], topk)

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        return self.hits(self._all.best(self.asked(queries), topk))

    def pieces(self) -> Ints:
        """See `Whole.pieces`."""
        from retriever_server.bm25.arrays import BLOCK

        return np.arange(0, len(self.store), BLOCK)

    def part(self, rows: Rows, *, threads: int | None = None) -> "Bm25Part":
        """What searches some of the passages alone. rows: cut between blocks."""
        from retriever_server.bm25.part import Bm25Part

        return Bm25Part(
            self._arrays, self._inverse_norms, self.store.id_order_N, rows=rows, threads=threads
        )

    def best_golds(self, asked: object, golds: Sequence[Sequence[str]]) -> Golds:
        """See `Whole.best_golds`."""
        from retriever_server.bm25.part import Bm25Queries

        assert isinstance(asked, Bm25Queries)
        positions = self.store.positions([doc_id for ids in golds for doc_id in ids])
        golds_at = np.cumsum([0, *map(len, golds)])
        return self._all.best_golds(asked, np.asarray(positions, dtype=np.int64), golds_at)

    def hits(self, found: Sequence[Found]) -> list[list[Hit]]:
        """See `Whole.hits`."""
        return [
            [
                Hit(doc_id=doc_id, score=score)
                for doc_id, score in zip(
                    self.store.doc_ids(positions), scores.tolist(), strict=True
                )
            ]
            for positions, scores in found
        ]

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self.store.read(doc_ids)

    def asked(self, queries: Sequence[str]) -> "Bm25Queries":
        """The known terms of each query and their weights `count * idf`, as Lucene boosts them."""
        from retriever_server.bm25.part import Bm25Queries
        from retriever_server.bm25.similarity import idf

        counted = [Counter(self._analyze(query)) for query in queries]
        numbers = self._numbers_of({term for counts in counted for term in counts})
        # flat lists of numbers: numpy takes one of tuples in a single step of some ten
        # milliseconds, in which no other thread runs
        numbers_T: list[int] = []
        counts_T: list[int] = []
        query_at = [0]
        for counts in counted:
            for term, count in counts.items():
                if (number := numbers[term]) >= 0:
                    numbers_T.append(number)
                    counts_T.append(count)
            query_at.append(len(numbers_T))
        terms = np.asarray(numbers_T, dtype=np.int64)
        ends = np.asarray(query_at, dtype=np.int64)
        df = self._arrays.term_postings[terms + 1] - self._arrays.term_postings[terms]
        weights = np.asarray(counts_T, dtype=np.float32) * idf(df, self._num_searchable)
        query = np.repeat(np.arange(len(queries)), np.diff(ends))
        order = np.lexsort((terms, weights / np.maximum(df, 1), query))
        return Bm25Queries(terms[order], weights[order], ends)

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
