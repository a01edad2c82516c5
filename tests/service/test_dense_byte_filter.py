"""The filter of bytes: what it leaves out is bounded, in every format and by all instructions."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from counting_filters import BYTE_KINDS, byte_loops
from dense_case import brute_ranks, hard_queries, hard_values, make_vectors, ranked_case, ranks_of

from convsearch.cli.checks import dense_products
from retriever_server.dense import dots, units
from retriever_server.dense.byte_codes import UNKNOWN, code_rows
from retriever_server.dense.byte_filter import ByteFilter, agrees_with_numpy, byte_loop
from retriever_server.dense.dots import Instructions
from retriever_server.dense.exact_rank import BLOCK_ROWS, RankEngine
from retriever_server.dense.formats import CODES, FORMATS, Floats, Format, bits_of, decode, encode
from retriever_server.dense.units import choose_filters


@pytest.fixture(scope="module", params=BYTE_KINDS)
def kind(request: pytest.FixtureRequest) -> Instructions:
    return request.param


@pytest.fixture(scope="module", params=FORMATS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return ranked_case(tmp_path_factory.mktemp("bytes"), request.param)


@pytest.mark.parametrize("topk", [1, 100, 100_000])
def test_ranks_are_exact_in_every_format(case, kind: Instructions, topk: int) -> None:
    vectors, values_ND, order_N, queries_QD, golds = case
    engine = RankEngine(vectors, order_N, [ByteFilter(kind, byte_loops[kind], vectors)] * 2)
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, topk)
    assert ranks_of(engine, queries_QD, golds, topk) == expected


def test_without_the_bound_ranks_are_wrong(case, kind: Instructions) -> None:
    """The control: what rounding leaves out of both sides is left out."""
    vectors, values_ND, order_N, queries_QD, golds = case

    class Careless(ByteFilter):
        def prepare(self, *arguments):
            prepared = super().prepare(*arguments)
            prepared.error_Q[:] = 0
            return prepared

        def coded(self, block):
            return replace(super().coded(block), left_out=0.0)

    engine = RankEngine(vectors, order_N, [Careless(kind, byte_loops[kind], vectors)])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 100)
    assert ranks_of(engine, queries_QD, golds, 100) != expected


def strange_rows(dim: int) -> Iterator[Floats]:
    """Rows of many sizes, with nothing in them, and with one number that is all of them."""
    rng = np.random.default_rng(4)
    for scale in (0.0, 1e-30, 1e-3, 1.0, 1e4, 1e15):
        yield rng.standard_normal((5, dim)).astype(np.float32) * np.float32(scale)
    alone = rng.standard_normal((5, dim)).astype(np.float32)
    alone[:, 7] = 1e5
    yield alone


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("reach", [63, 127])
def test_codes_leave_out_no_more_than_they_say(name: Format, reach: int) -> None:
    dim = 64
    mean_D = np.random.default_rng(5).standard_normal(dim).astype(np.float32)
    inverse_D = np.random.default_rng(6).uniform(0.1, 10, dim).astype(np.float32)
    codes, scales, bounds = np.empty((5, dim), np.uint8), np.empty(5, np.float32), np.empty(2)
    for values in strange_rows(dim):
        raw = encode(np.clip(values, -6e4, 6e4) if name == "float16" else values, name)
        code_rows(
            bits_of(raw), CODES[name], mean_D, inverse_D, reach, np.empty(dim, np.float32), codes,
            scales, bounds,
        )  # fmt: skip
        exact = (decode(raw, name).astype(np.float64) - mean_D) * inverse_D
        whole = codes.astype(np.float64) - (reach + 1)
        left_out = exact - scales[:, None].astype(np.float64) * whole
        lengths = np.array([np.linalg.norm(v, axis=1).max() for v in (exact, left_out)])
        assert (lengths <= bounds).all()
        assert (bounds <= lengths * 1.01).all()
        assert np.abs(whole).max(axis=1).tolist() == [reach] * 5


def test_rows_beyond_single_precision_have_no_bound(tmp_path: Path, kind: Instructions) -> None:
    values_ND = hard_values(600, 64, "bfloat16")
    values_ND[::7] *= np.float32(1e36)
    values_ND = decode(encode(values_ND, "bfloat16"), "bfloat16")
    vectors, order_N = make_vectors(tmp_path / "v", values_ND), np.arange(600)
    by = ByteFilter(kind, byte_loops[kind], vectors)
    [block] = vectors.blocks(BLOCK_ROWS)
    assert by.coded(block).left_out == UNKNOWN
    queries_QD, golds = hard_queries(hard_values(600, 64, "bfloat16"), 40)
    queries_QD *= np.float32(1e-3)
    queries_QD[3] = 0
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 700)
    assert ranks_of(RankEngine(vectors, order_N, [by]), queries_QD, golds, 700) == expected


def test_dimensions_of_all_sizes(tmp_path: Path, kind: Instructions) -> None:
    """Some never differ, some differ a million times as much as others."""
    values_ND = hard_values(5000, 64, "bfloat16") * np.logspace(-3, 3, 64).astype(np.float32)
    values_ND[:, :5] = 7
    values_ND = decode(encode(values_ND, "bfloat16"), "bfloat16")
    queries_QD, golds = hard_queries(values_ND, 60)
    queries_QD *= np.logspace(3, -3, 64).astype(np.float32)
    vectors, order_N = make_vectors(tmp_path / "v", values_ND), np.arange(5000)
    engine = RankEngine(vectors, order_N, [ByteFilter(kind, byte_loops[kind], vectors)])
    expected = brute_ranks(values_ND, order_N, queries_QD, golds, 6000)
    assert ranks_of(engine, queries_QD, golds, 6000) == expected


def test_queries_lie_as_the_instruction_reads_them() -> None:
    codes_QD = np.random.default_rng(1).integers(-127, 128, (40, 64)).astype(np.int8)
    found = dots.packed(codes_QD)
    assert found.shape == (2, 2, 8, 32, 4)
    assert found.ctypes.data % 64 == 0
    for query, d in ((0, 0), (17, 33), (39, 63)):
        assert found[query // 32, d // 32, d % 32 // 4, query % 32, d % 4] == codes_QD[query, d]
    assert not found[1, :, :, 8:].any(), "the last group is filled up with zeros"


def test_a_loop_is_compared_before_it_is_used(kind: Instructions) -> None:
    assert agrees_with_numpy(kind, byte_loops[kind], 96)


@pytest.mark.skipif(dots.AVX2 not in dots.here(), reason="no AVX2 here")
def test_eight_bits_are_too_many_for_avx2() -> None:
    """Its sums of two products are cut at 16 bits, and the comparison finds that."""
    eight = replace(dots.AVX2, reach=127)
    assert not agrees_with_numpy(eight, byte_loop(eight), 96)


@pytest.mark.skipif(not dots.here(), reason="no such instructions here")
def test_which_vectors_take_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(units, "available", lambda: False)
    values_ND = hard_values(40, 64, "float16")
    for name in FORMATS:
        chosen = choose_filters(make_vectors(tmp_path / name, values_ND, name), 3)
        assert [type(one) for one in chosen] == [ByteFilter] * 3
    assert choose_filters(make_vectors(tmp_path / "odd", values_ND[:, :48])) == []
    vectors = make_vectors(tmp_path / "v", values_ND)
    monkeypatch.setattr(units, "bytes_agree", lambda kind, count, dim: False)
    with caplog.at_level(logging.WARNING):
        assert choose_filters(vectors) == []
    assert caplog.text.count("not what they should be") == len(dots.here())
    monkeypatch.setattr(dots, "here", list)
    assert choose_filters(vectors) == []


def test_the_doctor_says_what_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    for tiles, kinds, words in (
        (True, [dots.AVX2], "(AMX)"),
        (False, [dots.VNNI256, dots.AVX2], "bytes by AVX-VNNI"),
        (False, [], "float32"),
    ):
        monkeypatch.setattr(units, "available", lambda tiles=tiles: tiles)
        monkeypatch.setattr(dots, "here", lambda kinds=kinds: kinds)
        [finding] = dense_products()
        assert words in finding.found
