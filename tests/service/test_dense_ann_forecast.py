"""What approximate indexes will take: near to what they take, and refused where there is less."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dense_case import make_vectors
from small_corpus import make_tiny_sentence_model, random_passages, write_corpus
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import ConfigError
from retriever_server import memory
from retriever_server.dense.ann_build import build_ann, in_making, train_positions
from retriever_server.dense.ann_forecast import forecast_ann, refuse_too_large
from retriever_server.dense.ann_memory import adding_bytes, training_bytes
from retriever_server.dense.faiss_index import new_index
from retriever_server.dense.vectors import Vectors
from retriever_server.indexing.ann import build_ann_index
from retriever_server.indexing.dense import build_dense_index

NUM, DIM = 12_000, 24


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """More than are tried."""
    values_ND = np.random.default_rng(0).standard_normal((NUM, DIM), dtype=np.float32)
    return make_vectors(tmp_path_factory.mktemp("vectors") / "vectors", values_ND)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and an exact `index`."""
    folder = tmp_path_factory.mktemp("ann")
    make_tiny_sentence_model(folder / "encoder")
    corpus = write_corpus(folder, random_passages(200))
    build_dense_index(corpus, folder / "index", encoder_path=folder / "encoder")
    return folder


@pytest.mark.parametrize(
    "factory",
    [
        "Flat",
        "SQ8",
        "IVF64,SQ8",
        "IVF2048,SQ8",
        "IVF64,PQ6x4fs",
        "IVF64,PQ4np",
        "HNSW16",
        "PCA12,IVF16,SQ8",
        "IVF16,SQ8,RFlat",
    ],
)
def test_the_size_on_disk_is_what_was_said(vectors: Vectors, tmp_path: Path, factory: str) -> None:
    said = forecast_ann(vectors, factory)
    with in_making(tmp_path / "ann", vectors, factory) as snapshots:
        build_ann(vectors, factory, snapshots)
    path = tmp_path / "ann" / "index.faiss"
    assert said.index_bytes == pytest.approx(path.stat().st_size, rel=0.02)
    assert said.disk_bytes == 2 * said.index_bytes
    assert said.num_vectors == NUM
    assert said.tried_rows == 10_240
    least, most = said.train_s
    assert 0 <= least <= most < 60
    assert 0 < said.add_s < 60
    assert said.memory_bytes >= said.vector_bytes + said.train_bytes


def test_codes_that_few_vectors_cannot_train_are_said_to_be_unknown(vectors: Vectors) -> None:
    said = forecast_ann(vectors, "PQ4x14np")  # which needs 16,384
    assert said.index_bytes is None
    assert "size is not known: it cannot be trained on 12000 vectors" in str(said)


def test_codes_that_want_more_vectors_are_tried_on_more(tmp_path: Path) -> None:
    values_ND = np.random.default_rng(0).standard_normal((30_000, 2), dtype=np.float32)
    vectors = make_vectors(tmp_path / "vectors", values_ND)
    said = forecast_ann(vectors, "PQ1x14np")
    assert said.tried_rows == 20_480
    centroids, codes = 2**14 * 2 * 4, 30_000 * 2  # 14 bits take 2 bytes
    assert said.index_bytes == pytest.approx(centroids + codes, rel=0.01)


def test_memory_of_training_counts_what_is_copied() -> None:
    sample = 100_000 * 256 * 4
    assert training_bytes(new_index(256, "HNSW16"), 100_000) == 0
    assert sample < training_bytes(new_index(256, "PQ16np"), 100_000) < 2 * sample
    rotated = training_bytes(new_index(256, "OPQ64,PQ64np"), 100_000)
    assert sample + 6 * 65_536 * 256 * 4 < rotated < 6 * sample
    tables = adding_bytes(new_index(256, "PQ16np"), 4096) - adding_bytes(
        new_index(256, "PQ32np"), 4096
    )
    assert tables == 1024 * 16 * 256 * 4  # of 16 dimensions; those of 8 need none
    by_graph = training_bytes(new_index(256, "PCA64,HNSW16_PQ16"), 100_000)
    assert by_graph > sample + 100_000 * 64 * 4


def test_no_more_than_262144_vectors_are_for_training() -> None:
    assert len(train_positions(600)) == 600
    assert len(train_positions(262_144)) == 262_144
    assert len(train_positions(262_145)) == 131_073
    assert len(train_positions(25_700_000)) <= 262_144


def test_a_machine_that_is_too_small_is_refused_before_training(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tmp_path / "world"
    shutil.copytree(made, world)

    def build() -> None:
        build_ann_index(
            world / "index", encoder_path=world / "encoder", factory="SQ8", searches=[""]
        )

    monkeypatch.setattr("retriever_server.indexing.ann.build_ann", lambda *_: pytest.fail("built"))
    with monkeypatch.context() as patch:
        patch.setattr("psutil.disk_usage", lambda _: SimpleNamespace(free=4_000))
        with pytest.raises(ConfigError, match=r"index needs .* MB of disk, 0\.0 MB free; choose"):
            build()
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda: 1_000)
        sentence = r"ann: building SQ8 needs .* GB, .* free; free some memory, or choose a factory"
        with pytest.raises(ConfigError, match=sentence):
            build()
    assert not [*(world / "index").glob("ann*")]


def test_what_a_killed_build_left_makes_room_for_the_rest(
    vectors: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = forecast_ann(vectors, "SQ8")
    assert said.index_bytes is not None
    left = tmp_path / "ann.partial" / "whole"
    left.mkdir(parents=True)
    with (left / "index.faiss").open("wb") as out:
        os.truncate(out.fileno(), said.index_bytes)
    free = SimpleNamespace(free=said.index_bytes)
    monkeypatch.setattr("psutil.disk_usage", lambda _: free)
    refuse_too_large(said, tmp_path / "ann")
    (left / "index.faiss").rename(tmp_path / "index.faiss")
    with pytest.raises(ConfigError, match="make room"):
        refuse_too_large(said, tmp_path / "ann")


def test_the_command_says_it_first(made: Path, tmp_path: Path) -> None:
    world = tmp_path / "world"
    shutil.copytree(made, world)
    flags = ["--index", str(world / "index"), "--encoder", str(world / "encoder")]
    done = CliRunner().invoke(app, ["ann", *flags, "--factory", "IVF4,SQ8", "--samples", "5"])
    assert done.exit_code == 0, done.output
    assert "IVF4,SQ8 over 200 vectors: 0.0 MB of disk and 0.0 MB while building" in done.stderr
    assert "to train and about" in done.stderr
    assert "training on 200 vectors, a single call of FAISS: " in done.stderr
    assert "adding" in done.stderr
    assert "measuring" in done.stderr
    assert "ranks equal" in done.stdout
