"""Dense ranks equal brute force in double precision, whatever is hard about the vectors."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dense_case import brute_ranks, hard_queries, hard_values, make_vectors, ranks_of

from convsearch.errors import EngineError
from retriever_server.dense import exact_rank, filters
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.formats import FORMATS, Format

SHORT = 100


def _order(num: int) -> np.ndarray:
    return np.random.default_rng(7).permutation(num)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("topk", [1, 10, 100_000])
def test_all_formats_and_depths(tmp_path: Path, name: Format, topk: int) -> None:
    values_ND = hard_values(9000, 48, name)
    queries_QD, golds = hard_queries(values_ND, 200)
    order_N = _order(len(values_ND))
    engine = RankEngine(make_vectors(tmp_path / "v", values_ND, name), order_N)
    assert ranks_of(engine, queries_QD, golds, topk) == brute_ranks(
        values_ND, order_N, queries_QD, golds, topk
    )


def test_equal_passages_are_ordered_by_id(tmp_path: Path) -> None:
    """All vectors the same, so the bound leaves everything in doubt."""
    values_ND = np.tile(hard_values(10, 24, "bfloat16")[:1], (3000, 1))
    order_N = _order(3000)
    engine = RankEngine(make_vectors(tmp_path / "v", values_ND), order_N)
    golds = [[5], [2999], [17, 1800, 4]]
    ranks = ranks_of(engine, np.ones((3, 24), np.float32), golds, 5000)
    assert ranks == [int(min(order_N[gold])) + 1 for gold in golds]


def test_company_blocks_and_threads_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values_ND = hard_values(6000, 32, "bfloat16")
    queries_QD, golds = hard_queries(values_ND, 40)
    engine = RankEngine(make_vectors(tmp_path / "v", values_ND), _order(6000))
    together = ranks_of(engine, queries_QD, golds, 3000)
    with ThreadPoolExecutor(8) as pool:
        alone = list(
            pool.map(lambda i: ranks_of(engine, queries_QD[[i]], [golds[i]], 3000)[0], range(40))
        )
    assert alone == together
    monkeypatch.setattr(exact_rank, "BLOCK_ROWS", 1024)
    monkeypatch.setattr(exact_rank, "MAX_QUERIES", 7)
    assert ranks_of(engine, queries_QD, golds, 3000) == together


@pytest.mark.parametrize("shrunk", ["bound", "ties"])
def test_these_cases_would_find_a_wrong_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrunk: str
) -> None:
    """With the rounding of sums forgotten, or ties left undecided, ranks differ."""
    values_ND = hard_values(9000, 48, "float32")
    queries_QD, golds = hard_queries(values_ND, 300)
    order_N = _order(len(values_ND))
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, SHORT)
    if shrunk == "bound":
        monkeypatch.setattr(filters, "FLOAT32_UNIT", 0.0)
    else:
        order_N = np.zeros_like(order_N)
    engine = RankEngine(make_vectors(tmp_path / "v", values_ND, "float32"), order_N)
    assert ranks_of(engine, queries_QD, golds, SHORT) != expected


def test_scores_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    engine = RankEngine(
        make_vectors(tmp_path / "v", np.full((4, 8), 1e20, np.float32), "float32"), np.arange(4)
    )
    with pytest.raises(EngineError, match="do not fit into float32"):
        ranks_of(engine, np.full((1, 8), 1e20, np.float32), [[0]], 10)
