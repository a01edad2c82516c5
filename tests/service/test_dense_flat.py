"""Lists with the help of a flat index that rounds: FAISS' indexes for CPUs in the place of GPUs."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from dense_case import hard_queries, hard_values, make_vectors

from retriever_server.dense import flat
from retriever_server.dense.exact_rank import RankEngine, split
from retriever_server.dense.flat import FlatLists, flat_lists
from retriever_server.dense.formats import Floats
from retriever_server.dense.lists import top_lists
from retriever_server.dense.part import DensePart, DenseQueries
from retriever_server.dense.vectors import Block, Vectors
from retriever_server.parts import Rows

Values = Callable[[Block], Floats]
NUM, DIM = 6000, 48
ORDER_N = np.random.default_rng(7).permutation(NUM)


def float32(blocks: Sequence[Block], values: Values) -> faiss.Index:
    return filled(faiss.IndexFlatIP(DIM), blocks, values)


def float16(blocks: Sequence[Block], values: Values) -> faiss.Index:
    kind = faiss.ScalarQuantizer.QT_fp16
    return filled(faiss.IndexScalarQuantizer(DIM, kind, faiss.METRIC_INNER_PRODUCT), blocks, values)


class Sharded:
    """Two indexes in float16, put together as those of several GPUs are."""

    def __init__(self, blocks: Sequence[Block], values: Values) -> None:
        self._parts = [float16(part, values) for part in split(blocks, 2)]
        self._shards = faiss.IndexShards(DIM, True, True)
        for part in self._parts:
            self._shards.add_shard(part)

    def search(self, queries_QD: Floats, k: int, /) -> tuple[Floats, np.ndarray]:
        return self._shards.search(queries_QD, k)


def filled(index: faiss.Index, blocks: Sequence[Block], values: Values) -> faiss.Index:
    for block in blocks:
        index.train(values(block))
        index.add(values(block))
    return index


def plain_values(seed: int = 3) -> Floats:
    """Around a common mean, without copies."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((NUM, DIM)) + 3 * rng.standard_normal(DIM)).astype(np.float32)


def same(found: Sequence, expected: Sequence) -> bool:
    return all(
        np.array_equal(a, b) for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "ADD_ROWS", 1024)


@pytest.mark.parametrize("make", [float32, float16, Sharded])
@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_lists_are_exact_and_the_index_vouches_for_them(tmp_path: Path, make, name) -> None:
    values_ND = plain_values()
    vectors = make_vectors(tmp_path / "v", values_ND, name)
    queries_QD, _ = hard_queries(values_ND, 150)
    lists = FlatLists(vectors, make)
    for topk in (1, 10, 100):
        expected = top_lists(vectors, ORDER_N, queries_QD, topk)
        assert same(lists.top_lists(ORDER_N, queries_QD, topk), expected)
    assert lists.num_unsure == 0


@pytest.mark.parametrize("scale", [1e-9, 1e5])
def test_very_long_and_very_short_queries_are_no_excuse(tmp_path: Path, scale: float) -> None:
    values_ND = plain_values()
    vectors = make_vectors(tmp_path / "v", values_ND)
    queries_QD = np.concatenate([hard_queries(values_ND, 30)[0], np.zeros((1, DIM), np.float32)])
    queries_QD *= np.float32(scale)
    lists = FlatLists(vectors, float16)
    assert same(
        lists.top_lists(ORDER_N, queries_QD, 20), top_lists(vectors, ORDER_N, queries_QD, 20)
    )
    assert lists.num_unsure == 1, "of the query that is zero, for which all are equal"


def test_where_ties_are_many_the_lists_are_made_without_it(tmp_path: Path) -> None:
    """Copies by the hundred: the index cannot tell which of them come first."""
    values_ND = hard_values(NUM, DIM, "bfloat16")
    values_ND[1000:4500] = values_ND[7]
    vectors = make_vectors(tmp_path / "v", values_ND)
    queries_QD = np.concatenate([hard_queries(values_ND, 40)[0], values_ND[7:8]])
    lists = FlatLists(vectors, float16)
    assert same(
        lists.top_lists(ORDER_N, queries_QD, 50), top_lists(vectors, ORDER_N, queries_QD, 50)
    )
    assert 0 < lists.num_unsure < len(queries_QD)
    deep = lists.top_lists(ORDER_N, queries_QD[:3], NUM + 5)
    assert same(deep, top_lists(vectors, ORDER_N, queries_QD[:3], NUM + 5))


class Wrong:
    """Answers of a good index, spoilt."""

    def __init__(self, spoil: Callable[[Floats, np.ndarray], tuple[Floats, np.ndarray]]) -> None:
        self._spoil, self.calls = spoil, 0

    def make(self, blocks: Sequence[Block], values: Values) -> "Wrong":
        self._index = float16(blocks, values)
        return self

    def search(self, queries_QD: Floats, k: int, /) -> tuple[Floats, np.ndarray]:
        self.calls += 1
        return self._spoil(*self._index.search(queries_QD, k))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda products, ids: (products * np.float32(1.01), ids), "than float16 explains"),
        (lambda products, ids: (products, (ids + 1) % NUM), "than float16 explains"),
        (lambda products, ids: (products * np.float32("nan"), ids), "than float16 explains"),
        (lambda products, ids: (products, np.where(ids == ids[0, 0], -1, ids)), "or too few"),
        (lambda products, ids: (products, np.repeat(ids[:, :1], ids.shape[1], 1)), "twice"),
    ],
)
def test_an_index_that_is_wrong_is_not_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil, reason: str
) -> None:
    values_ND = plain_values()
    vectors = make_vectors(tmp_path / "v", values_ND)
    queries_QD, _ = hard_queries(values_ND, 20)
    wrong = Wrong(spoil)
    lists = FlatLists(vectors, wrong.make)
    expected = top_lists(vectors, ORDER_N, queries_QD, 10)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert same(lists.top_lists(ORDER_N, queries_QD, 10), expected)
    assert (wrong.calls, lists.num_unsure) == (1, 40)
    assert [reason in line for line in caplog.messages] == [True]


def test_a_shard_lists_its_own_rows(tmp_path: Path) -> None:
    values_ND = plain_values()
    whole = make_vectors(tmp_path / "v", values_ND)
    queries_QD, _ = hard_queries(values_ND, 20)
    asked = DenseQueries(len(queries_QD), np.arange(len(queries_QD)), queries_QD)
    vectors = Vectors(whole.folder, rows=Rows(2048, 5120))
    engine = RankEngine(vectors, ORDER_N)
    helped = DensePart(engine, FlatLists(vectors, Sharded)).best(asked, 30)
    assert same(helped, DensePart(engine).best(asked, 30))
    assert all(
        (found.positions >= 2048).all() and (found.positions < 5120).all() for found in helped
    )


def test_without_a_gpu_there_is_no_such_index(tmp_path: Path) -> None:
    vectors = make_vectors(tmp_path / "v", plain_values())
    assert faiss.get_num_gpus() > 0 or flat_lists(vectors) is None
