"""BM25 over an index folder: exact scores of all passages, from which ranks and lists are read."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError, DependencyError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.manifest import fact, index_info, read_manifest
from retriever_server.ordering import best_positions, rank_of_best
from retriever_server.store import PassageStore

if TYPE_CHECKING:
    from retriever_server.analyzer import Analyzer


class Bm25Backend:
    """A `Retriever` over the files of `build_bm25_index`. Safe for threads; keeps no call.

    A term that occurs n times in the query counts n times, as in Lucene and bm25s. Scores are
    summed in double precision, in alphabetical order of the terms, and rounded to single, so
    neither the order of the words nor the company of other queries can change one.
    """

    def __init__(
        self,
        *,
        info: IndexInfo,
        store: PassageStore,
        analyzer: "Analyzer",
        vocabulary: dict[str, int],
        weights: npt.NDArray[np.float32],
        positions: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
    ) -> None:
        """weights, positions: postings of all terms, term t at `starts[t]:starts[t + 1]`."""
        self.info = info
        self.store = store
        self._analyze = analyzer
        self._vocabulary = vocabulary
        self._weights = weights
        self._positions = positions
        self._starts = starts

    @classmethod
    def load(cls, index_dir: Path) -> "Bm25Backend":
        """Opens an index folder, its large arrays memory-mapped.

        Raises MissingFileError, DataError or DependencyError, each with the next step.
        """
        manifest = read_manifest(index_dir)
        if manifest.get("engine") != "bm25":
            raise DataError(
                f"{index_dir}: this is a {manifest.get('engine')} index; choose that retriever, or "
                'build a BM25 index with "convsearch index"'
            )
        try:
            import bm25s

            from retriever_server.analyzer import ANALYZER, Analyzer
        except ImportError as error:
            raise DependencyError(
                f"{error.name} is not installed; run pip install 'convsearch[retriever]'"
            ) from None
        if fact(manifest, index_dir, "analyzer", str) != ANALYZER:
            raise DataError(
                f"{index_dir}: made with text analysis {manifest['analyzer']!r}, this program has "
                f'{ANALYZER!r}; rebuild the index with "convsearch index"'
            )
        try:
            model = bm25s.BM25.load(index_dir, mmap=True, show_progress=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{index_dir}: the files of the index cannot be read ({error}); rebuild it with "
                '"convsearch index"'
            ) from None
        return cls(
            info=index_info(manifest, index_dir),
            store=PassageStore(index_dir),
            analyzer=Analyzer(),
            vocabulary=model.vocab_dict,
            weights=np.asarray(model.scores["data"]),
            positions=np.asarray(model.scores["indices"]),
            starts=np.asarray(model.scores["indptr"]),
        )

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`. Counts what beats the best gold passage; makes no list."""
        check_rank_call(queries, golds, topk)
        gold_positions = [self.store.positions(ids) for ids in golds]
        return [
            rank_of_best(self._scores(query), self.store.id_order_N, positions, topk)
            for query, positions in zip(queries, gold_positions, strict=True)
        ]

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        results = []
        for query in queries:
            scores_N = self._scores(query)
            best = best_positions(scores_N, self.store.id_order_N, topk)
            results.append(
                [Hit(doc_id=self.store.doc_ids[i], score=float(scores_N[i])) for i in best]
            )
        return results

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self.store.read(doc_ids)

    def _scores(self, query: str) -> npt.NDArray[np.float32]:
        """BM25 of every passage; 0 where none of the query's terms occurs."""
        counts = Counter(term for term in self._analyze(query) if term in self._vocabulary)
        scores_N = np.zeros(len(self.store), dtype=np.float64)
        for term, count in sorted(counts.items()):
            term_id = self._vocabulary[term]
            postings = slice(self._starts[term_id], self._starts[term_id + 1])
            weights = self._weights[postings]
            # a passage occurs once in a term's postings, so plain indexing adds up correctly
            scores_N[self._positions[postings]] += weights * np.float64(count)
        return scores_N.astype(np.float32)
