"""Dense search over an index folder: exact ranks and exact lists.

The score of a pair is the inner product of the query's float32 vector with the passage's stored
vector, in double precision. How ranks stay exact although most products are computed in half or
single precision is proven in `retriever_server.dense.exact_rank`.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convsearch.errors import ConfigError, DataError, EngineError
from convsearch.passport import sha256_of
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.backends.encoder import QUERY_LENGTH, Encoder, encoder_id, load_encoder
from retriever_server.backends.prefixes import prefixes_of, with_prefixes
from retriever_server.dense.ann import ANN
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.forecast import check_memory
from retriever_server.dense.formats import Floats
from retriever_server.dense.part import DensePart, DenseQueries, Lists, choose_lists
from retriever_server.dense.units import choose_filters
from retriever_server.dense.vectors import Vectors
from retriever_server.indexing.dense import OLD_VECTORS, ids_at
from retriever_server.indexing.dense_job import VECTORS
from retriever_server.manifest import check_files, fact, index_info, read_manifest
from retriever_server.parts import Found, Golds, Ints, ranks_from
from retriever_server.store import PassageStore

if TYPE_CHECKING:
    from retriever_server.backends.ann import AnnBackend

_QUERY_BATCH = 64


class DenseBackend:
    """A `Retriever` over the files of `build_dense_index`. Safe for threads. A query without any
    letter or digit matches nothing."""

    def __init__(
        self,
        *,
        info: IndexInfo,
        store: PassageStore,
        engine: RankEngine,
        encoder: Encoder,
        lists: Lists | None = None,
        query_length: int = QUERY_LENGTH,
    ) -> None:
        """engine, lists: over the vectors of the store's passages."""
        self.info = info
        self.store = store
        self.vectors = engine.vectors
        self._engine = engine
        self._all = DensePart(engine, lists)
        self._encoder = encoder
        self._query_length = query_length
        self._encoded: dict[str, Floats] = {}

    @staticmethod
    def load(index_dir: Path, encoder_path: Path) -> "DenseBackend | AnnBackend":
        """The engine of an index folder: `AnnBackend` where "convsearch ann" has put an
        approximate index beside the vectors, `load_exact` without one."""
        if (index_dir / ANN).is_dir():
            from retriever_server.backends.ann import AnnBackend

            return AnnBackend.load(index_dir, encoder_path)
        return DenseBackend.load_exact(index_dir, encoder_path)

    @classmethod
    def load_exact(
        cls, index_dir: Path, encoder_path: Path, *, from_disk: bool = False, verify: bool = True
    ) -> "DenseBackend":
        """Opens an index folder, its vectors memory-mapped, and the encoder that made it. Every
        file of vectors is compared with its SHA-256, a sample of the passages and ids with its own.

        from_disk: allow vectors that do not fit into memory, for those who read few. verify: False
        where others compare the files, each those that it searches.
        Raises MissingFileError, DataError, CheckpointError, DependencyError, or ConfigError where
        the index was made with another encoder or its vectors do not fit into memory.
        """
        manifest = read_manifest(index_dir)
        if manifest.get("engine") != "dense":
            raise DataError(
                f"{index_dir}: this is a {manifest.get('engine')} index; choose that retriever, or "
                'build a dense index with "convsearch index --engine dense"'
            )
        if (index_dir / OLD_VECTORS).is_file() or not (index_dir / VECTORS).is_dir():
            raise DataError(
                f"{index_dir}: a dense index of an older version of this program, in one float32 "
                'file; rebuild it with "convsearch index --engine dense"'
            )
        if not encoder_path.is_dir() or encoder_id(encoder_path) != fact(
            manifest, index_dir, "encoder_id", str
        ):
            load_encoder(encoder_path)  # a folder that is no encoder has a better sentence
            raise ConfigError(
                f"{encoder_path}: not the encoder that made {index_dir}; name that one or build "
                'the index again with "convsearch index --engine dense"'
            )
        if not from_disk:
            check_memory(index_dir / VECTORS)
        vectors = Vectors(index_dir / VECTORS, verify=verify)
        if vectors.encoder_id != manifest["encoder_id"]:
            raise DataError(
                f"{index_dir / VECTORS}: vectors of encoder {vectors.encoder_id[:12]}, but the "
                f"index is of {str(manifest['encoder_id'])[:12]}; "
                'rebuild the index with "convsearch index --engine dense"'
            )
        prefixes = prefixes_of(manifest, index_dir)
        info = index_info(manifest, index_dir)
        if sha256_of(index_dir / VECTORS / "vectors.json") != manifest.get("vectors_sha256"):
            raise DataError(
                f"{index_dir / VECTORS}: vectors of another index; copy it again, or rebuild the "
                'index with "convsearch index --engine dense"'
            )
        if "files" in manifest:  # absent in older indexes
            check_files(manifest, index_dir)
        encoder = with_prefixes(load_encoder(encoder_path), prefixes, encoder_path)
        store = PassageStore(index_dir)
        if (len(vectors), vectors.dim) != (len(store), encoder.dim):
            raise DataError(
                f"{index_dir}: {len(store)} passages and an encoder of {encoder.dim} dimensions, "
                f"but {len(vectors)} vectors of {vectors.dim}; rebuild the index with "
                '"convsearch index --engine dense"'
            )
        engine = RankEngine(vectors, store.id_order_N, [] if from_disk else choose_filters(vectors))
        return cls(
            info=info,
            store=store,
            engine=engine,
            encoder=encoder,
            lists=None if from_disk else choose_lists(engine),
        )

    @property
    def device(self) -> str:
        """Of its encoder, which uses the accelerators wherever the vectors do."""
        return self._encoder.device

    def with_query_length(self, max_length: int) -> "DenseBackend":
        """The same engine with another cut of queries, in tokens."""
        other = copy.copy(self)
        other._query_length, other._encoded = max_length, {}
        return other

    def with_encoded(self, queries: Sequence[str]) -> "DenseBackend":
        """The same engine, which has encoded these queries and does not again: to time a search."""
        other = copy.copy(self)
        other._encoded = dict(zip(queries, self.encode(queries), strict=True))
        return other

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`. Counts what beats the best gold passage; makes no list."""
        check_rank_call(queries, golds, topk)
        asked = self.asked(queries)
        return ranks_from(
            [self._all.count_before(asked, self.best_golds(asked, golds), topk)], topk
        )

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        return self.hits(self._all.best(self.asked(queries), topk))

    def pieces(self) -> Ints:
        """See `Whole.pieces`."""
        return self.vectors.pieces()

    def asked(self, queries: Sequence[str]) -> DenseQueries:
        """See `Whole.asked`."""
        places = [i for i, query in enumerate(queries) if has_word(query)]
        vectors_QD = np.empty((0, self.vectors.dim), dtype=np.float32)
        if places:
            vectors_QD = self.encode([queries[i] for i in places])
        return DenseQueries(len(queries), np.asarray(places, dtype=np.intp), vectors_QD)

    def best_golds(self, asked: object, golds: Sequence[Sequence[str]]) -> Golds:
        """See `Whole.best_golds`; zeros for a query without a word."""
        assert isinstance(asked, DenseQueries)
        positions = [self.store.positions(ids) for ids in golds]
        found = Golds(score_Q=np.zeros(len(golds)), order_Q=np.zeros(len(golds), dtype=np.int64))
        for place, vector_D in zip(asked.places.tolist(), asked.vectors_QD, strict=True):
            best = self._engine.best(vector_D, positions[place])
            found.score_Q[place], found.order_Q[place] = best
        return found

    def hits(self, found: Sequence[Found]) -> list[list[Hit]]:
        """See `Whole.hits`."""
        return [
            [
                Hit(doc_id=doc_id, score=score)
                for doc_id, score in zip(
                    ids_at(self.store, best.positions.tolist()), best.scores.tolist(), strict=True
                )
            ]
            for best in found
        ]

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self.store.read(doc_ids)

    def encode(self, queries: Sequence[str]) -> Floats:
        """Vectors of queries, one row each. Raises EngineError where one is not finite."""
        if self._encoded and self._encoded.keys() >= set(queries):
            return np.stack([self._encoded[query] for query in queries])
        vectors_QD = self._encoder.encode(
            queries, is_query=True, max_length=self._query_length, batch_size=_QUERY_BATCH
        )
        if not np.isfinite(vectors_QD).all():
            raise EngineError("the query encoder gives numbers that are not finite")
        return np.ascontiguousarray(vectors_QD)


def has_word(query: str) -> bool:
    """Whether a query holds anything to search for."""
    return any(character.isalnum() for character in query)
