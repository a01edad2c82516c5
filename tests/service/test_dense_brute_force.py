"""Dense ranks over many vectors equal brute force in double precision: 0 mismatches."""

from pathlib import Path

import numpy as np
from dense_case import brute_ranks, hard_queries, hard_values, make_vectors, ranks_of

from retriever_server.dense import dots
from retriever_server.dense.byte_filter import ByteFilter, byte_loop
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.units import choose_filters


def test_two_thousand_queries_over_two_hundred_thousand_vectors(tmp_path: Path) -> None:
    values_ND = hard_values(200_000, 64, "bfloat16")
    queries_QD, golds = hard_queries(values_ND, 2000)
    order_N = np.random.default_rng(7).permutation(len(values_ND))
    vectors = make_vectors(tmp_path / "v", values_ND, shard_rows=32_768)
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 100)
    here = [[ByteFilter(kind, byte_loop(kind), vectors)] for kind in dots.here()]
    for filters in ([], choose_filters(vectors), *here):  # float32, what is chosen, all bytes
        engine = RankEngine(vectors, order_N, filters)
        assert ranks_of(engine, queries_QD, golds, 100) == expected
    found = [rank for rank in expected if rank is not None]
    assert len(set(found)) > 20, "the queries must be of all kinds"
    assert 200 < len(found) < 1990
