"""Lists by a rising bar equal those of FAISS and exact scores, on any instructions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from counting_filters import FILTERS, Make
from dense_case import hard_queries, hard_values, make_vectors
from plain_tiles import COUNTS, hidden_order

from convsearch.errors import EngineError
from retriever_server.dense import threshold_lists
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.filters import float32_slack
from retriever_server.dense.formats import FORMATS, Floats, Format, bits_of
from retriever_server.dense.kernels import near_score
from retriever_server.dense.part import DensePart, DenseQueries, choose_lists
from retriever_server.dense.threshold_lists import ThresholdLists
from retriever_server.dense.tile_filter import TileFilter

NUM, DIM = 20_000, 64
ORDER_N = np.random.default_rng(7).permutation(NUM)


@pytest.fixture(scope="module", params=COUNTS)
def count(request: pytest.FixtureRequest) -> Callable[..., None]:
    return request.param


@pytest.fixture(scope="module", params=FILTERS)
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory):
    """(vectors, values, queries)."""
    values_ND = hard_values(NUM, DIM, "bfloat16")
    vectors = make_vectors(tmp_path_factory.mktemp("lists") / "v", values_ND)
    return vectors, values_ND, hard_queries(values_ND, 70)[0]


def by_definition(values_ND: Floats, order_N: np.ndarray, queries_QD: Floats, topk: int):
    """All scores in double precision, sorted; those equal, by id order."""
    for query_D in queries_QD:
        scores = values_ND.astype(np.float64) @ query_D.astype(np.float64)
        yield np.lexsort((order_N, -scores))[:topk]


def same(found: Sequence, expected: Sequence) -> bool:
    return all(np.array_equal(one[0], best) for one, best in zip(found, expected, strict=True))


@pytest.mark.parametrize("topk", [1, 100, 5000])
@pytest.mark.parametrize("lanes", [1, 3])
def test_lists_are_exact(case, make, lanes: int, topk: int) -> None:
    vectors, values_ND, queries_QD = case
    engine = RankEngine(vectors, ORDER_N, [make(vectors)] * lanes, threads=3)
    queries_QD = queries_QD[: 70 if topk < 5000 else 5]
    found = ThresholdLists(engine).top_lists(ORDER_N, queries_QD, topk)
    assert same(found, list(by_definition(values_ND, ORDER_N, queries_QD, topk)))
    for (positions, scores), query_D in zip(found, queries_QD, strict=True):
        assert np.array_equal(scores, vectors.scores(query_D, positions))


def test_few_passages_and_deep_lists(tmp_path: Path, make) -> None:
    for num in (1, 300):
        values_ND = hard_values(num, DIM, "bfloat16")
        order_N = np.arange(num)[::-1]
        vectors = make_vectors(tmp_path / str(num), values_ND)
        engine = RankEngine(vectors, order_N, [make(vectors)] * 2)
        queries_QD, _ = hard_queries(values_ND, 9)
        found = ThresholdLists(engine).top_lists(order_N, queries_QD, 1000)
        assert same(found, list(by_definition(values_ND, order_N, queries_QD, 1000)))


def test_equal_passages_are_ordered_by_id(tmp_path: Path, make) -> None:
    """More of them than the list is long, so that all stay in doubt."""
    values_ND = np.tile(hard_values(10, DIM, "bfloat16")[:1], (9000, 1))
    order_N = np.random.default_rng(3).permutation(9000)
    vectors = make_vectors(tmp_path / "v", values_ND)
    engine = RankEngine(vectors, order_N, [make(vectors)] * 2)
    [(positions, _)] = ThresholdLists(engine).top_lists(
        order_N, np.full((1, DIM), 1 / 3, np.float32), 50
    )
    assert order_N[positions].tolist() == list(range(50))


def test_many_queries_and_callers_at_once(case, make, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _, queries_QD = case
    lists = ThresholdLists(RankEngine(vectors, ORDER_N, [make(vectors)] * 2, threads=2))
    together = lists.top_lists(ORDER_N, queries_QD, 20)
    monkeypatch.setattr(threshold_lists, "_ROOM_BYTES", 24 * 20 * 3 * 16)  # 16 queries at a time
    parts = lists.top_lists(ORDER_N, queries_QD, 20)
    with ThreadPoolExecutor(6) as pool:
        alone = list(pool.map(lambda q: lists.top_lists(ORDER_N, q[None], 20)[0], queries_QD))
    for found in (parts, alone):
        assert same(found, [positions for positions, _ in together])


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory):
    """As `case`."""
    values_ND, queries_QD = hidden_order(30_000, 12)
    return make_vectors(tmp_path_factory.mktemp("hidden") / "v", values_ND), values_ND, queries_QD


def test_without_the_bound_lists_are_wrong(hidden, count) -> None:
    """The control: the error of rounding the queries is left out."""
    vectors, values_ND, queries_QD = hidden
    order_N = np.arange(len(values_ND))

    class Careless(TileFilter):
        def prepare(self, *arguments):
            prepared = super().prepare(*arguments)
            prepared.error_Q[:], prepared.shift_Q[:] = 0, 0
            return prepared

    engine = RankEngine(vectors, order_N, [Careless(count)])
    found = ThresholdLists(engine).top_lists(order_N, queries_QD, 10)
    assert not same(found, list(by_definition(values_ND, order_N, queries_QD, 10)))


def test_almost_everything_in_doubt(hidden, make) -> None:
    vectors, values_ND, queries_QD = hidden
    order_N = np.arange(len(values_ND))
    engine = RankEngine(vectors, order_N, [make(vectors)])
    found = ThresholdLists(engine).top_lists(order_N, queries_QD, 10)
    assert same(found, list(by_definition(values_ND, order_N, queries_QD, 10)))


def test_lists_and_ranks_agree_and_the_part_takes_them(case, make) -> None:
    vectors, _, queries_QD = case
    engine = RankEngine(vectors, ORDER_N, [make(vectors)] * 2)
    lists = choose_lists(engine)
    assert isinstance(lists, ThresholdLists)
    asked = DenseQueries(len(queries_QD), np.arange(len(queries_QD)), queries_QD)
    plain = DensePart(RankEngine(vectors, ORDER_N))
    for one, other in zip(
        DensePart(engine, lists).best(asked, 30), plain.best(asked, 30), strict=True
    ):
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.scores, other.scores)


def test_scores_beyond_single_precision_are_refused(tmp_path: Path, make) -> None:
    vectors = make_vectors(tmp_path / "v", np.full((4, DIM), 1e20, np.float32))
    engine = RankEngine(vectors, np.arange(4), [make(vectors)])
    with pytest.raises(EngineError, match="do not fit into float32"):
        ThresholdLists(engine).top_lists(np.arange(4), np.full((1, DIM), 1e20, np.float32), 2)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dim", [64, 70])
def test_scores_in_float32_stay_within_their_slack(tmp_path: Path, name: Format, dim: int) -> None:
    values_ND = hard_values(500, dim, name)
    queries_QD, _ = hard_queries(values_ND, 20)
    vectors = make_vectors(tmp_path / "v", values_ND, name)
    [block] = vectors.blocks(1024)
    slack_Q = float32_slack(np.linalg.norm(queries_QD.astype(np.float64), axis=1), block)
    bits_BD, errors = bits_of(block.raw_BD), []
    for query_D, slack in zip(queries_QD, slack_Q.tolist(), strict=True):
        exact_B = vectors.scores(query_D, np.arange(500))
        near_B = [near_score(row_D, vectors.code, query_D) for row_D in bits_BD]
        errors.append(np.abs(near_B - exact_B).max() / slack)
    assert 1e-4 < max(errors) < 1
