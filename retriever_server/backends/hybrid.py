"""Two engines over one corpus, fused by reciprocal ranks (Cormack, Clarke and Büttcher, 2009)."""

import copy
import hashlib
from collections.abc import Sequence

from convsearch.errors import ConfigError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.fusion import RRF_K, fused
from convsearch.retrieval.info import IndexInfo, info_of
from convsearch.retrieval.protocol import Retriever
from convsearch.types import Hit, Passage
from retriever_server.batching import CPU, device_of

DEPTH = 1000
"""Passages of each engine that are fused."""


class HybridBackend:
    """A `Retriever` whose score of a passage is the sum of `1 / (60 + rank)` over both engines'
    first 1,000 passages. A passage in neither list matches nothing. Safe for threads where both
    engines are."""

    def __init__(self, first: Retriever, second: Retriever, *, depth: int = DEPTH) -> None:
        """Raises ConfigError where the two do not hold the same number of passages."""
        infos = [info_of(engine) for engine in (first, second)]
        sizes = {info.num_passages for info in infos if info is not None}
        if len(sizes) > 1:
            raise ConfigError(
                f"the two indexes hold {' and '.join(map(str, sorted(sizes)))} passages; a hybrid "
                "needs two indexes of the same corpus"
            )
        self._engines = first, second
        self._depth = depth
        prints = [info.fingerprint if info else repr(info) for info in infos]
        digest = hashlib.sha256(repr((RRF_K, depth, prints)).encode()).hexdigest()
        self.info = IndexInfo(
            engine="hybrid", num_passages=max(sizes, default=0), fingerprint=digest
        )

    @property
    def device(self) -> str:
        """The accelerator of either engine, `cpu` where neither has one."""
        return next(filter(lambda device: device != CPU, map(device_of, self._engines)), CPU)

    def with_query_length(self, max_length: int) -> "HybridBackend":
        """The same pair, its dense engine with another cut of queries, in tokens."""
        other = copy.copy(self)
        first, second = (
            cut(max_length) if (cut := getattr(engine, "with_query_length", None)) else engine
            for engine in self._engines
        )
        other._engines = first, second
        return other

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`."""
        check_rank_call(queries, golds, topk)
        self.passages(sorted({doc_id for ids in golds for doc_id in ids}))
        return [
            next((rank for rank, hit in enumerate(hits, 1) if hit.doc_id in ids), None)
            for hits, ids in zip(self.search(queries, topk), golds, strict=True)
        ]

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        lists = [engine.search(queries, self._depth) for engine in self._engines]
        return [fused(pair)[:topk] for pair in zip(*lists, strict=True)]

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`."""
        return self._engines[0].passages(doc_ids)
