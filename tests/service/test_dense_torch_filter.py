"""The half-precision filter, on the CPU: ranks stay exact, its bound is needed and holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dense_case import brute_ranks, hard_queries, hard_values, make_vectors, ranks_of

from convsearch.errors import ConfigError
from retriever_server.dense import torch_filter
from retriever_server.dense.exact_rank import BLOCK_ROWS, RankEngine, split
from retriever_server.dense.filters import as_float32
from retriever_server.dense.formats import Format, decode, encode
from retriever_server.dense.torch_filter import TorchFilter
from retriever_server.dense.vectors import Vectors

HALF: tuple[Format, ...] = ("bfloat16", "float16")
NUM, DIM, QUERIES = 20_000, 64, 200


@pytest.fixture(scope="module", params=HALF)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(vectors, id order, queries, golds, ranks by brute force)."""
    values_ND = hard_values(NUM, DIM, request.param)
    queries_QD, golds = hard_queries(values_ND, QUERIES)
    order_N = np.random.default_rng(3).permutation(NUM)
    vectors = make_vectors(tmp_path_factory.mktemp("half") / "v", values_ND, request.param)
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 100)
    assert 20 < sum(rank is not None for rank in expected) < QUERIES
    return vectors, order_N, queries_QD, golds, expected


@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_are_exact(case, devices: int) -> None:
    vectors, order_N, queries_QD, golds, expected = case
    filters = [TorchFilter(vectors) for _ in range(devices)]
    for one, part in zip(filters, split(list(vectors.blocks(BLOCK_ROWS)), devices), strict=True):
        one.load(part)
    engine = RankEngine(vectors, order_N, filters)
    assert ranks_of(engine, queries_QD, golds, 100) == expected
    assert ranks_of(engine, queries_QD[:1], golds[:1], 100) == expected[:1]


def test_ranks_are_exact_where_sums_are_rounded_first(
    case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_filter, "subtracts_before_rounding", lambda *_: False)
    vectors, order_N, queries_QD, golds, expected = case
    engine = RankEngine(vectors, order_N, [TorchFilter(vectors)])
    assert ranks_of(engine, queries_QD, golds, 100) == expected


def test_without_the_bound_ranks_are_wrong(case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the error of rounding the queries is left out."""
    vectors, order_N, queries_QD, golds, expected = case

    class Careless(TorchFilter):
        def prepare(self, *arguments):
            prepared = super().prepare(*arguments)
            prepared.error_Q[:] = 0
            return prepared

    engine = RankEngine(vectors, order_N, [Careless(vectors)])
    assert ranks_of(engine, queries_QD, golds, 100) != expected


def test_products_stay_within_the_bound(case) -> None:
    """Every single product, not the ranks: nothing outside the thresholds is on the wrong side."""
    vectors, _, queries_QD, golds, _ = case
    doubles_QD = queries_QD.astype(np.float64)
    gold_Q = np.asarray([vectors.scores(q, np.asarray(g))[0]
                         for q, g in zip(queries_QD, golds, strict=True)])  # fmt: skip
    half = TorchFilter(vectors)
    engine = RankEngine(vectors, np.arange(NUM), [half])
    prepared = half.prepare(queries_QD, vectors, gold_Q)
    for block in vectors.blocks(BLOCK_ROWS):
        exact_QB = doubles_QD @ as_float32(block).astype(np.float64).T
        products = half.products(prepared, block, gold_Q)
        above_Q, near_Q = products.count(engine.pool, engine.share)
        better_Q = (exact_QB > gold_Q[:, None]).sum(axis=1)
        assert (above_Q <= better_Q).all()
        assert (better_Q <= above_Q + near_Q).all()
        assert near_Q.mean() < 0.2 * len(block.raw_BD), "the bound must also be of use"


def test_very_short_vectors_do_not_overflow_float16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaling queries by 2^14 / (|q||x|) alone made them infinite, and ranks wrong."""
    monkeypatch.setattr(torch_filter, "subtracts_before_rounding", lambda *_: False)
    values_ND = hard_values(2000, DIM, "float16") * np.float32(0.002)
    values_ND = decode(encode(values_ND, "float16"), "float16")
    queries_QD, golds = hard_queries(values_ND, 50)
    vectors, order_N = make_vectors(tmp_path / "v", values_ND, "float16"), np.arange(2000)
    engine = RankEngine(vectors, order_N, [TorchFilter(vectors)])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 100)
    assert ranks_of(engine, queries_QD, golds, 100) == expected


def test_the_probe_tells_one_rounding_from_two(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert torch_filter.subtracts_before_rounding(device, torch.bfloat16, 64)
    monkeypatch.setattr(torch, "addmm", lambda minus, a, b: a @ b + minus)
    assert not torch_filter.subtracts_before_rounding(device, torch.bfloat16, 64)


def test_float32_vectors_are_refused(tmp_path: Path) -> None:
    vectors: Vectors = make_vectors(tmp_path / "v", np.ones((4, 8), np.float32), "float32")
    with pytest.raises(ConfigError, match="these are float32"):
        TorchFilter(vectors)
