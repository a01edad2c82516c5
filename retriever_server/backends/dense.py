"""Dense search over an index folder: inner products of all passages, exact ranks, FAISS for lists.

The score of a pair is the inner product of its two float32 vectors in double precision. Matrix
products in single precision find what is certainly above or below; the few passages that rounding
could misplace are scored again in double. So ranks and lists agree with each other, ties included,
and neither depends on block sizes or on other queries of the batch.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import ConfigError, DataError, DependencyError, EngineError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.backends.encoder import QUERY_LENGTH, Encoder, encoder_id, load_encoder
from retriever_server.indexing.dense import NORMS, VECTORS
from retriever_server.manifest import fact, index_info, read_manifest
from retriever_server.store import PassageStore

Floats = npt.NDArray[np.float32]

_BLOCK_SCORES = 4_000_000
"""Scores of one block in memory: 16 MB, small enough for the caches of the machine to help."""
_SPARE_HITS = 32
"""Hits fetched beyond topk for the re-check of ties; more where these do not suffice."""
_QUERY_BATCH = 64


class DenseBackend:
    """A `Retriever` over the files of `build_dense_index`. Safe for threads. A query without any
    letter or digit matches nothing."""

    def __init__(
        self,
        *,
        info: IndexInfo,
        store: PassageStore,
        vectors: Floats,
        norms: npt.NDArray[np.float64],
        encoder: Encoder,
        query_length: int = QUERY_LENGTH,
    ) -> None:
        """vectors: one row a passage, may be memory-mapped; norms: their lengths."""
        self.info = info
        self.store = store
        self._vectors_ND = vectors
        self._norms_N = norms
        self._encoder = encoder
        self._query_length = query_length

    @classmethod
    def load(cls, index_dir: Path, encoder_path: Path) -> "DenseBackend":
        """Opens an index folder, its vectors memory-mapped, and the encoder that made it.

        Raises MissingFileError, DataError, CheckpointError, DependencyError, or ConfigError where
        the index was made with another encoder.
        """
        manifest = read_manifest(index_dir)
        if manifest.get("engine") != "dense":
            raise DataError(
                f"{index_dir}: this is a {manifest.get('engine')} index; choose that retriever, or "
                'build a dense index with "convsearch index --engine dense"'
            )
        if not encoder_path.is_dir() or encoder_id(encoder_path) != fact(
            manifest, index_dir, "encoder_id", str
        ):
            load_encoder(encoder_path)  # a folder that is no encoder has a better sentence
            raise ConfigError(
                f"{encoder_path}: not the encoder that made {index_dir}; name that one or build "
                'the index again with "convsearch index --engine dense"'
            )
        try:
            vectors = np.load(index_dir / VECTORS, mmap_mode="r")
            norms = np.load(index_dir / NORMS)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{index_dir}: the vectors of the index cannot be read ({error}); rebuild it with "
                '"convsearch index --engine dense"'
            ) from None
        encoder = load_encoder(encoder_path)
        store = PassageStore(index_dir)
        if vectors.shape != (len(store), encoder.dim) or norms.shape != (len(store),):
            raise DataError(
                f"{index_dir}: {len(store)} passages but vectors of shape {vectors.shape}; rebuild "
                'the index with "convsearch index --engine dense"'
            )
        return cls(
            info=index_info(manifest, index_dir),
            store=store,
            vectors=np.asarray(vectors),
            norms=norms,
            encoder=encoder,
        )

    def with_query_length(self, max_length: int) -> "DenseBackend":
        """The same engine with another cut of queries, in tokens."""
        other = copy.copy(self)
        other._query_length = max_length
        return other

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`. Counts what beats the best gold passage; makes no list."""
        check_rank_call(queries, golds, topk)
        gold_positions = [self.store.positions(ids) for ids in golds]
        found: list[int | None] = [None] * len(queries)
        asked = [i for i, query in enumerate(queries) if _has_word(query)]
        if not asked:
            return found
        vectors_QD = self._encode([queries[i] for i in asked])
        best_golds = [
            self._best(vector, gold_positions[i])
            for i, vector in zip(asked, vectors_QD, strict=True)
        ]
        beaten_by = self._count_better(vectors_QD, best_golds)
        for i, count in zip(asked, beaten_by, strict=True):
            found[i] = 1 + count if count < topk else None
        return found

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        found: list[list[Hit]] = [[] for _ in queries]
        asked = [i for i, query in enumerate(queries) if _has_word(query)]
        if not asked:
            return found
        vectors_QD = self._encode([queries[i] for i in asked])
        for i, vector, near in zip(
            asked, vectors_QD, self._candidates(vectors_QD, topk), strict=True
        ):
            scores = self._exact(vector, near)
            order = np.lexsort((self.store.id_order_N[near], -scores))[:topk].tolist()
            found[i] = [
                Hit(doc_id=self.store.doc_id(int(near[j])), score=float(scores[j])) for j in order
            ]
        return found

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self.store.read(doc_ids)

    def _encode(self, queries: Sequence[str]) -> Floats:
        vectors = self._encoder.encode(
            queries, is_query=True, max_length=self._query_length, batch_size=_QUERY_BATCH
        )
        if not np.isfinite(vectors).all():
            raise EngineError("the query encoder gives numbers that are not finite")
        return np.ascontiguousarray(vectors)

    def _exact(self, vector_D: Floats, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Scores in double precision; each depends on its own pair of vectors alone."""
        rows = self._vectors_ND[positions].astype(np.float64)
        return (rows * vector_D.astype(np.float64)).sum(axis=1)

    def _best(self, vector_D: Floats, golds: Sequence[int]) -> tuple[float, int]:
        """Score and place in id order of the best gold passage."""
        positions = np.asarray(golds, dtype=np.int64)
        scores = self._exact(vector_D, positions)
        order = self.store.id_order_N[positions]
        best = np.lexsort((order, -scores))[0]
        return float(scores[best]), int(order[best])

    def _rounding(self, vectors_QD: Floats) -> npt.NDArray[np.float64]:
        """Bound on the error of a single-precision inner product with any passage, for each query.

        `d u / (1 - d u) |x| |q|` (Higham, Accuracy and Stability, section 3.1), u = 2^-24, whatever
        the order of the sum; doubled for the rounding of thresholds to single precision.
        """
        unit = vectors_QD.shape[1] * 2.0**-24
        lengths = np.linalg.norm(vectors_QD.astype(np.float64), axis=1)
        return 2 * unit / (1 - unit) * lengths * float(self._norms_N.max())

    def _count_better(
        self, vectors_QD: Floats, best_golds: Sequence[tuple[float, int]]
    ) -> list[int]:
        """How many passages come before the given gold of each query. The gold is not counted: it
        falls into the doubtful range and is then compared by its own exact score."""
        scores_Q = np.asarray([score for score, _ in best_golds])
        slack_Q = self._rounding(vectors_QD)
        above_Q1 = (scores_Q + slack_Q).astype(np.float32)[:, None]
        below_Q1 = (scores_Q - slack_Q).astype(np.float32)[:, None]
        counts_Q = np.zeros(len(scores_Q), dtype=np.int64)
        step = max(1, _BLOCK_SCORES // len(scores_Q))
        for first in range(0, len(self._vectors_ND), step):
            products_QN = vectors_QD @ self._vectors_ND[first : first + step].T
            certain_QN = products_QN > above_Q1
            counts_Q += certain_QN.sum(axis=1)
            doubtful_QN = (products_QN >= below_Q1) & ~certain_QN
            for q in np.flatnonzero(doubtful_QN.any(axis=1)).tolist():
                near = first + np.flatnonzero(doubtful_QN[q])
                exact = self._exact(vectors_QD[q], near)
                score, order = best_golds[q]
                tied_before = (exact == score) & (self.store.id_order_N[near] < order)
                counts_Q[q] += np.count_nonzero((exact > score) | tied_before)
        return counts_Q.tolist()

    def _candidates(self, vectors_QD: Floats, topk: int) -> list[npt.NDArray[np.int64]]:
        """For each query the positions of all passages that can be among its topk."""
        try:
            import faiss
        except ImportError:
            raise DependencyError(
                "faiss is not installed; run pip install 'convsearch[retriever]'"
            ) from None
        total = len(self._vectors_ND)
        depth = min(topk, total)
        slack_Q = 2 * self._rounding(vectors_QD)
        fetched = min(total, depth + _SPARE_HITS)
        while True:
            # the search of IndexFlatIP, on the memory-mapped vectors instead of a copy
            products_QK, positions_QK = faiss.knn(
                vectors_QD, self._vectors_ND, fetched, metric=faiss.METRIC_INNER_PRODUCT
            )
            cut_Q = products_QK[:, depth - 1] - slack_Q
            if fetched == total or bool((products_QK[:, -1] < cut_Q).all()):
                return [
                    positions[products >= cut]
                    for products, positions, cut in zip(
                        products_QK, positions_QK, cut_Q, strict=True
                    )
                ]
            fetched = min(total, 2 * fetched)


def _has_word(query: str) -> bool:
    return any(character.isalnum() for character in query)
