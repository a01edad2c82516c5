"""What counts and lists in the first cache: ranks stay exact, on any instructions."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from counting_filters import FILTERS, Make
from dense_case import brute_ranks, hard_queries, hard_values, make_vectors, ranked_case, ranks_of
from plain_tiles import hidden_order

from retriever_server.dense import counting, exact_rank
from retriever_server.dense.bands import SIDE
from retriever_server.dense.counting import CHUNK_ROWS
from retriever_server.dense.exact_rank import BLOCK_ROWS, RankEngine
from retriever_server.dense.filters import as_float32
from retriever_server.dense.formats import decode, encode
from retriever_server.dense.tile_filter import PART_STEPS


@pytest.fixture(scope="module", params=FILTERS)
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory):
    return ranked_case(tmp_path_factory.mktemp("counted"))


@pytest.mark.parametrize("topk", [1, 100, 100_000])
@pytest.mark.parametrize("lanes", [1, 3])
def test_ranks_are_exact(case, make: Make, lanes: int, topk: int) -> None:
    vectors, values_ND, order_N, queries_QD, golds = case
    engine = RankEngine(vectors, order_N, [make(vectors)] * lanes, threads=3)
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, topk)
    assert ranks_of(engine, queries_QD, golds, topk) == expected
    assert ranks_of(engine, queries_QD[:1], golds[:1], topk) == expected[:1]


@pytest.mark.parametrize("dim", [32, PART_STEPS * SIDE, (PART_STEPS + 1) * SIDE])
@pytest.mark.parametrize("num", [1, SIDE, CHUNK_ROWS + SIDE + 1])
def test_edges_of_tiles_and_chunks(tmp_path: Path, make: Make, dim: int, num: int) -> None:
    values_ND = hard_values(num, dim, "bfloat16")
    order_N = np.arange(num)[::-1]
    vectors = make_vectors(tmp_path / "v", values_ND)
    engine = RankEngine(vectors, order_N, [make(vectors)] * 2)
    for queries in (1, SIDE, SIDE + 1):
        queries_QD, golds = hard_queries(values_ND, queries)
        expected = brute_ranks(values_ND, order_N, queries_QD, golds, 50)
        assert ranks_of(engine, queries_QD, golds, 50) == expected


def test_many_vectors_are_taken_in_larger_blocks(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_rank, "BLOCK_ROWS", 1024)
    values_ND, order_N = hard_values(40_000, 32, "bfloat16"), np.arange(40_000)
    vectors = make_vectors(tmp_path / "v", values_ND)
    shared, alone = make(vectors), [make(vectors) for _ in range(2)]
    engine = RankEngine(vectors, order_N, [shared] * 2)
    assert engine.block_rows == 2048
    assert RankEngine(vectors, order_N, [shared]).block_rows == 1024
    assert RankEngine(vectors, order_N, alone).block_rows == 1024, "as devices hold them"
    assert RankEngine(vectors, order_N, [shared] * 5).block_rows == 1024
    queries_QD, golds = hard_queries(values_ND, 32)
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 100)
    assert ranks_of(engine, queries_QD, golds, 100) == expected


def test_callers_at_once_do_not_meet(case, make: Make) -> None:
    """One filter serves all threads."""
    vectors, _, order_N, queries_QD, golds = case
    engine = RankEngine(vectors, order_N, [make(vectors)] * 2, threads=2)
    together = ranks_of(engine, queries_QD, golds, 3000)
    with ThreadPoolExecutor(6) as pool:
        alone = pool.map(
            lambda i: ranks_of(engine, queries_QD[[i]], [golds[i]], 3000)[0], range(60)
        )
        assert list(alone) == together[:60]


@pytest.mark.parametrize("scale", [1e-19, 1e-12, 1e17])
def test_flushed_and_large_numbers(tmp_path: Path, make: Make, scale: float) -> None:
    """Products of the smallest are below what float32 holds without loss, and AMX drops them."""
    values_ND = hard_values(700, 64, "bfloat16") * np.float32(scale)
    values_ND = decode(encode(values_ND, "bfloat16"), "bfloat16")
    queries_QD, golds = hard_queries(values_ND / np.float32(scale), 40)
    queries_QD *= np.float32(scale)
    order_N = np.arange(700)
    vectors = make_vectors(tmp_path / "v", values_ND)
    engine = RankEngine(vectors, order_N, [make(vectors)])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 1000)
    assert ranks_of(engine, queries_QD, golds, 1000) == expected


def test_equal_passages_are_ordered_by_id(tmp_path: Path, make: Make) -> None:
    """Everything is in doubt, in both filters."""
    values_ND = np.tile(hard_values(10, 64, "bfloat16")[:1], (3000, 1))
    order_N = np.random.default_rng(7).permutation(3000)
    vectors = make_vectors(tmp_path / "v", values_ND)
    engine = RankEngine(vectors, order_N, [make(vectors)])
    golds = [[5], [2999], [17, 1800, 4]]
    ranks = ranks_of(engine, np.full((3, 64), 1 / 3, np.float32), golds, 5000)
    assert ranks == [int(min(order_N[gold])) + 1 for gold in golds]


def test_what_is_counted_is_certain_and_what_is_not_is_listed(case, make: Make) -> None:
    """The scores in double precision say so, for each query and block."""
    vectors, _, _, queries_QD, golds = case
    gold_Q = np.asarray([vectors.scores(q, np.asarray(g))[0]
                         for q, g in zip(queries_QD, golds, strict=True)])  # fmt: skip
    by, listed = make(vectors), 0
    prepared = by.prepare(queries_QD, vectors, gold_Q)
    with ThreadPoolExecutor(1) as pool:
        for block in vectors.blocks(BLOCK_ROWS):
            exact_QB = queries_QD.astype(np.float64) @ as_float32(block).astype(np.float64).T
            products = by.products(prepared, block, gold_Q)
            above_Q, near_Q = products.count(pool, lambda items: iter([(0, items)]))
            starts = np.concatenate(([0], np.cumsum(near_Q)))
            columns = products.near_columns(np.arange(len(queries_QD)), starts)
            for q in range(len(queries_QD)):
                rest = np.setdiff1d(
                    np.arange(exact_QB.shape[1]), columns[starts[q] : starts[q + 1]]
                )
                assert (exact_QB[q, rest] > gold_Q[q]).sum() == above_Q[q]
            listed += len(columns)
    assert len(queries_QD) <= listed < 0.1 * len(vectors) * len(queries_QD), (
        "golds at least, and the bound is of use"
    )


def test_almost_everything_in_doubt(tmp_path: Path, make: Make) -> None:
    values_ND, queries_QD = hidden_order(9000, 40)
    golds = [[int(gold)] for gold in np.random.default_rng(6).integers(0, 9000, 40)]
    vectors, order_N = make_vectors(tmp_path / "v", values_ND), np.arange(9000)
    engine = RankEngine(vectors, order_N, [make(vectors)])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 9000)
    assert ranks_of(engine, queries_QD, golds, 9000) == expected


def test_without_the_second_look_s_bound_ranks_are_wrong(case, make: Make) -> None:
    """The control: what float32 rounds is left out there. Near ties and copies are among them."""
    vectors, values_ND, order_N, queries_QD, golds = case
    by = make(vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "float32_slack", lambda length_Q, block: np.zeros(len(length_Q)))
        found = ranks_of(RankEngine(vectors, order_N, [by]), queries_QD, golds, 1000)
    assert found != brute_ranks(values_ND, order_N, queries_QD, golds, 1000)
