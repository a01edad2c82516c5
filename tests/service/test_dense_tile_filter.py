"""The filter on tiles of bfloat16: ranks stay exact. In plain loops on any processor, and on AMX
where this one has it."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dense_case import brute_ranks, hard_values, make_vectors, ranked_case, ranks_of
from plain_tiles import COUNTS, plain_count, wrong_count

from retriever_server.dense import dots, tiles, units
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.tile_filter import TileFilter, agrees_with_numpy
from retriever_server.dense.units import choose_filters

Count = Callable[..., None]


@pytest.fixture(scope="module", params=COUNTS)
def count(request: pytest.FixtureRequest) -> Count:
    return request.param


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory):
    return ranked_case(tmp_path_factory.mktemp("counted"))


def test_without_the_bound_ranks_are_wrong(case, count: Count) -> None:
    """The control: the error of rounding the queries is left out."""
    vectors, values_ND, order_N, queries_QD, golds = case

    class Careless(TileFilter):
        def prepare(self, *arguments):
            prepared = super().prepare(*arguments)
            prepared.error_Q[:] = 0
            return prepared

    engine = RankEngine(vectors, order_N, [Careless(count)])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 100)
    assert ranks_of(engine, queries_QD, golds, 100) != expected


def test_queries_lie_in_tiles_as_the_instruction_reads_them() -> None:
    bits_QD = np.arange(40 * 64, dtype=np.uint16).reshape(40, 64)
    found = tiles.packed(bits_QD)
    assert found.shape == (2, 2, 2, 16, 16, 2)
    assert found.ctypes.data % 64 == 0
    for query, d in ((0, 0), (17, 33), (39, 63)):
        place = (query // 32, d // 32, query % 32 // 16, d % 32 // 2, query % 16, d % 2)
        assert found[place] == bits_QD[query, d]
    assert not found[1, :, 0, :, 8:].any(), "the last group is filled up with zeros"


def test_a_loop_is_compared_before_it_is_used(count: Count) -> None:
    assert agrees_with_numpy(count, 64)
    assert not agrees_with_numpy(wrong_count, 64)


def test_which_vectors_take_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(units, "available", lambda: True)
    monkeypatch.setattr(units, "amx_count", plain_count)
    monkeypatch.setattr(dots, "here", list)
    values_ND = hard_values(40, 64, "float16")
    vectors = make_vectors(tmp_path / "fits", values_ND)
    chosen = choose_filters(vectors, 3)
    assert [type(one) for one in chosen] == [TileFilter] * 3
    assert choose_filters(make_vectors(tmp_path / "half", values_ND, "float16")) == []
    assert choose_filters(make_vectors(tmp_path / "odd", values_ND[:, :48])) == []
    monkeypatch.setattr(units, "amx_count", wrong_count)
    with caplog.at_level(logging.WARNING):
        assert choose_filters(vectors) == []
    assert "not what they should be" in caplog.text
    monkeypatch.setattr(units, "available", lambda: False)
    assert choose_filters(vectors) == []
