"""Stored vectors: number formats, shards, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dense_case import make_vectors

from convsearch.errors import ConfigError, DataError, MissingFileError
from retriever_server.dense import forecast, kernels
from retriever_server.dense.forecast import Forecast, check_disk, check_memory, duration, gigabytes
from retriever_server.dense.formats import (
    CODES,
    FORMATS,
    Format,
    bits_of,
    check_format,
    decode,
    encode,
)
from retriever_server.dense.vectors import Vectors, write_shard

VALUES = np.random.default_rng(0).standard_normal((100, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vectors(tmp_path_factory.mktemp("v") / "vectors", VALUES, shard_rows=40).folder


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    step = 2.0**-7  # between neighbours from 1 to 2
    values = np.asarray([1, 1 + step / 2, 1 + 1.5 * step, 1 + 0.51 * step, -3, 1e-40], np.float32)
    back = decode(encode(values, "bfloat16"), "bfloat16")
    assert back[:5].tolist() == [1, 1, 1 + 2 * step, 1 + step, -3]
    assert np.isinf(decode(encode(np.asarray([3.4e38], np.float32), "bfloat16"), "bfloat16"))
    assert np.isnan(decode(encode(np.asarray([np.nan], np.float32), "bfloat16"), "bfloat16"))
    with pytest.raises(ConfigError, match="unknown format of vectors 'int8'"):
        check_format("int8")


@pytest.mark.parametrize("name", FORMATS)
def test_compiled_loops_read_every_number(name: Format) -> None:
    values = np.concatenate((VALUES, VALUES * np.float32(1e-7), VALUES * np.float32(1e-9) * 0))
    raw, out = encode(values, name), np.empty_like(values)
    kernels.decode_rows(bits_of(raw), CODES[name], 0, len(values), out)
    assert np.array_equal(out, decode(raw, name))
    if name == "float16":
        assert np.array_equal(out, raw.astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dim", [1, 15, 16, 17, 70, 768])
def test_scores_are_summed_in_their_defined_order(name: Format, dim: int) -> None:
    """Number d belongs to sum d % 16; each sum adds up in order, then the sums do. All bits."""
    rng = np.random.default_rng(dim)
    largest = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38}[name]
    sizes = np.asarray([1, largest, 1e-7, 1e-40, 0, -0.0])[rng.integers(0, 6, (60, dim))]
    sizes[:20], sizes[20] = 1, -0.0
    values_ND = (rng.uniform(-1, 1, (60, dim)) * sizes).astype(np.float32)
    raw = encode(values_ND, name)
    query_D = rng.standard_normal(dim) * 10.0 ** rng.integers(-30, 30, dim)
    products_ND = decode(raw, name).astype(np.float64) * query_D
    sums = np.zeros((60, 16))
    for first in range(0, dim, 16):
        part = products_ND[:, first : first + 16]
        sums[:, : part.shape[1]] += part
    expected = np.zeros(60)
    for lane in range(16):
        expected += sums[:, lane]
    found = np.empty(60)
    kernels.exact_scores(bits_of(raw), CODES[name], query_D, found)
    assert found.view(np.uint64).tolist() == expected.view(np.uint64).tolist()


def test_shards_are_one_sequence(folder: Path) -> None:
    vectors = Vectors(folder)
    stored = decode(encode(VALUES, "bfloat16"), "bfloat16")
    assert (len(vectors), vectors.dim, vectors.num_bytes) == (100, 12, 2400)
    blocks = list(vectors.blocks(1024))
    assert [(block.first, len(block.raw_BD)) for block in blocks] == [(0, 40), (40, 40), (80, 20)]
    positions = np.asarray([99, 0, 40, 39, 99])
    assert np.array_equal(decode(vectors.gather(positions), "bfloat16"), stored[positions])
    query = np.arange(12, dtype=np.float32)
    expected = (stored[positions].astype(np.float64) * query).sum(axis=1)
    np.testing.assert_allclose(vectors.scores(query, positions), expected, rtol=1e-14)
    for block in blocks:
        rows = stored[block.first : block.first + len(block.raw_BD)].astype(np.float64)
        assert block.longest >= np.linalg.norm(rows, axis=1).max()
        assert block.farthest >= np.linalg.norm(rows - vectors.mean_D, axis=1).max()
        assert block.farthest < 1.01 * np.linalg.norm(rows - vectors.mean_D, axis=1).max()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-24])


def _remove(path: Path) -> None:
    path.unlink()


def _other_dim(path: Path) -> None:
    np.save(path, np.zeros((40, 13), np.uint16))


@pytest.mark.parametrize("name", ["00000.npy", "00002.npy", "mean.npy", "extents.npy"])
@pytest.mark.parametrize("harm", [_flip, _cut, _remove])
def test_a_damaged_file_is_refused_by_name(folder: Path, tmp_path: Path, name: str, harm) -> None:
    shutil.copytree(folder, tmp_path / "v")
    harm(tmp_path / "v" / name)
    with pytest.raises(DataError, match=rf"{name}.*convsearch index"):
        Vectors(tmp_path / "v")


def test_other_damage(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "v")
    _other_dim(tmp_path / "v" / "00001.npy")
    with pytest.raises(DataError, match=r"00001\.npy: uint16 of shape \(40, 13\)"):
        Vectors(tmp_path / "v")
    path = tmp_path / "v" / "vectors.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format_version": 1}))
    with pytest.raises(DataError, match="format version 1, this program reads 2"):
        Vectors(tmp_path / "v")
    path.write_text(json.dumps({**manifest, "dtype": "int4"}))
    with pytest.raises(DataError, match="damaged"):
        Vectors(tmp_path / "v")
    path.unlink()
    with pytest.raises(MissingFileError, match=r"vectors\.json: missing"):
        Vectors(tmp_path / "v")


@pytest.mark.parametrize(("value", "name"), [(np.nan, "bfloat16"), (1e6, "float16")])
def test_what_is_not_finite_is_never_written(tmp_path: Path, value: float, name: Format) -> None:
    values = VALUES.copy()
    values[17, 3] = value
    with pytest.raises(DataError, match=rf"row 17 is not finite in {name}"):
        write_shard(tmp_path, 0, values, name)
    assert list(tmp_path.iterdir()) == []


def test_vectors_that_do_not_fit_are_refused_with_numbers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_memory(folder)
    wide = make_vectors(tmp_path / "wide", np.ones((50_000, 40), np.float32), "float32").folder
    monkeypatch.setattr(forecast, "free_bytes", lambda: 2_400_000)
    with pytest.raises(ConfigError, match=r"needs 8\.0 MB of memory, 2\.4 MB free; bfloat16 needs"):
        check_memory(wide)
    monkeypatch.setattr(forecast, "free_bytes", lambda: 2399)
    with pytest.raises(ConfigError, match=r"0\.0 MB free; use a machine with more"):
        check_memory(folder)
    with pytest.raises(ConfigError, match="of disk"):
        check_disk(tmp_path, 10**18)


def test_the_forecast_in_words() -> None:
    said = Forecast(
        num_passages=25_700_000, dim=768, format="bfloat16", corpus_bytes=15 * 10**9,
        passages_per_s=1000,
    )  # fmt: skip
    assert said.vector_bytes == 25_700_000 * 768 * 2
    assert "39.5 GB of memory" in str(said)
    assert "7 h 08 min" in str(said)
    assert "encode" not in str(replace(said, passages_per_s=None))
    assert (duration(40), duration(720), gigabytes(2e6)) == ("40 s", "12 min", "2.0 MB")
