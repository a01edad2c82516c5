"""The Triton filter in Triton's interpreter: `service/test_dense_triton_filter.py` runs this file
in a process of its own, since triton reads TRITON_INTERPRET when it is imported."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_case import brute_ranks, hard_queries, hard_values, make_vectors, ranks_of

from retriever_server.dense import torch_filter, triton_filter
from retriever_server.dense.exact_rank import BLOCK_ROWS, RankEngine, split
from retriever_server.dense.filters import as_float32
from retriever_server.dense.formats import Format
from retriever_server.dense.torch_filter import TorchFilter
from retriever_server.dense.triton_filter import CAPACITY, TritonFilter, agrees_with_torch
from retriever_server.dense.units import gpu_filter

HALF: tuple[Format, ...] = ("bfloat16", "float16")
CPU = torch.device("cpu")
SIZES = ((16, 600, 64), (130, 260, 72), (1, 5, 3))
"""Queries, passages, dimensions."""


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own filter may not subtract an offset: trying whether it could takes seconds."""
    monkeypatch.setattr(torch_filter, "subtracts_before_rounding", lambda *_: False)


def _case(folder: Path, name: Format, size: tuple[int, int, int]):
    num_queries, num, dim = size
    values_ND = hard_values(num, dim, name)
    queries_QD, golds = hard_queries(values_ND, num_queries)
    order_N = np.random.default_rng(3).permutation(num)
    return make_vectors(folder / "v", values_ND, name), values_ND, order_N, queries_QD, golds


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("size", SIZES)
def test_ranks_are_exact(tmp_path: Path, name: Format, size: tuple[int, int, int]) -> None:
    vectors, values_ND, order_N, queries_QD, golds = _case(tmp_path, name, size)
    for by in (TritonFilter(vectors, "cpu"), TorchFilter(vectors)):
        engine = RankEngine(vectors, order_N, [by])
        for topk in (10, 5000):
            expected = brute_ranks(values_ND, order_N, queries_QD, golds, topk)
            assert ranks_of(engine, queries_QD, golds, topk) == expected


def test_ranks_are_exact_on_two_devices_with_loaded_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter, count_band = threading.Lock(), triton_filter.count_band

    def one_at_a_time(*arguments):
        with interpreter:  # it patches triton while it runs
            return count_band(*arguments)

    monkeypatch.setattr(triton_filter, "count_band", one_at_a_time)
    values_ND = hard_values(1500, 32, "bfloat16")
    queries_QD, golds = hard_queries(values_ND, 20)
    order_N = np.random.default_rng(3).permutation(1500)
    vectors = make_vectors(tmp_path / "v", values_ND, shard_rows=1024)
    filters = [TritonFilter(vectors, "cpu") for _ in range(2)]
    for one, part in zip(filters, split(list(vectors.blocks(BLOCK_ROWS)), 2), strict=True):
        one.load(part)
    engine = RankEngine(vectors, order_N, filters)
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 300)
    assert ranks_of(engine, queries_QD, golds, 300) == expected


def test_more_rows_in_doubt_than_the_buffer_holds(tmp_path: Path) -> None:
    """Copies of the gold passages, and queries that bfloat16 holds exactly, so that the engine asks
    this filter for all of them and not a finer one."""
    values_ND = hard_values(2000, 24, "bfloat16")
    values_ND[100 : 100 + CAPACITY + 40] = values_ND[7]
    values_ND[1000:1200] = values_ND[8]
    queries_QD = values_ND[[7, 8, 9, 7]]
    golds, order_N = [[7], [8], [9], [300]], np.random.default_rng(3).permutation(2000)
    vectors = make_vectors(tmp_path / "v", values_ND)
    by = TritonFilter(vectors, "cpu")
    gold_Q = np.asarray(
        [vectors.scores(q, np.asarray(g))[0] for q, g in zip(queries_QD, golds, strict=True)]
    )
    prepared = by.prepare(queries_QD, vectors, gold_Q)
    assert not prepared.error_Q.any()
    block = next(vectors.blocks(BLOCK_ROWS))
    engine = RankEngine(vectors, order_N, [by])
    products = by.products(prepared, block, gold_Q)
    _, near_Q = products.count(engine.pool, engine.share)
    assert (near_Q > CAPACITY).tolist() == [True, False, False, True]
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 5000)
    assert ranks_of(engine, queries_QD, golds, 5000) == expected


@pytest.mark.parametrize("name", HALF)
def test_counts_and_rows_are_those_of_the_definition(tmp_path: Path, name: Format) -> None:
    """What is certain is right, and what is in doubt is listed: the float64 scores say so."""
    vectors, _, order_N, queries_QD, golds = _case(tmp_path, name, (33, 700, 48))
    gold_Q = np.asarray(
        [vectors.scores(q, np.asarray(g))[0] for q, g in zip(queries_QD, golds, strict=True)]
    )
    by = TritonFilter(vectors, "cpu")
    engine = RankEngine(vectors, order_N, [by])
    prepared = by.prepare(queries_QD, vectors, gold_Q)
    block = next(vectors.blocks(BLOCK_ROWS))
    products = by.products(prepared, block, gold_Q)
    above_Q, near_Q = products.count(engine.pool, engine.share)
    exact_QB = queries_QD.astype(np.float64) @ as_float32(block).astype(np.float64).T
    queries = np.flatnonzero(near_Q)
    starts = np.concatenate(([0], np.cumsum(near_Q[queries])))
    columns = products.near_columns(queries, starts)
    assert len(queries) == 33, "a gold passage is always in doubt itself"
    for place, q in enumerate(queries):
        listed = columns[starts[place] : starts[place + 1]]
        assert len(set(listed.tolist())) == near_Q[q]
        assert golds[q][0] in listed
        rest = np.setdiff1d(np.arange(700), listed)
        assert (exact_QB[q, rest] > gold_Q[q]).sum() == above_Q[q]
    assert near_Q.mean() < 0.2 * 700, "the bound must also be of use"


def test_without_the_bound_ranks_are_wrong(tmp_path: Path) -> None:
    """The control: the error of rounding the queries is left out."""
    vectors, values_ND, order_N, queries_QD, golds = _case(tmp_path, "bfloat16", (100, 1000, 64))

    class Careless(TritonFilter):
        def prepare(self, *arguments):
            prepared = super().prepare(*arguments)
            prepared.error_Q[:] = 0
            return prepared

    engine = RankEngine(vectors, order_N, [Careless(vectors, "cpu")])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 5000)
    assert ranks_of(engine, queries_QD, golds, 5000) != expected


def test_the_check_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes here, and finds a count or a row that is off."""
    assert agrees_with_torch(CPU, torch.float16, 70)
    right = triton_filter.count_band

    def wrong_count(*arguments):
        counts, columns = right(*arguments)
        counts[1, 3] += 1
        return counts, columns

    def wrong_row(*arguments):
        counts, columns = right(*arguments)
        columns[3, 0] += 1
        return counts, columns

    vectors = make_vectors(tmp_path / "v", hard_values(50, 8, "bfloat16"))
    assert type(gpu_filter(vectors, "cpu")) is TritonFilter
    for wrong in (wrong_count, wrong_row):
        monkeypatch.setattr(triton_filter, "count_band", wrong)
        assert type(gpu_filter(vectors, "cpu")) is TorchFilter
