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
from retriever_server.dense.ann import AnnIndex, import_faiss, train_positions
from retriever_server.dense.ann_forecast import forecast_ann, refuse_too_large
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
    ["Flat", "SQ8", "IVF64,SQ8", "IVF64,PQ12np", "HNSW16", "PCA12,IVF16,SQ8", "IVF16,SQ8,RFlat"],
)
def test_the_size_on_disk_is_what_was_said(vectors: Vectors, tmp_path: Path, factory: str) -> None:
    said = forecast_ann(vectors, factory)
    index = AnnIndex.build(vectors, factory)
    path = tmp_path / "index.faiss"
    import_faiss().write_index(index._index, str(path))
    assert said.index_bytes == pytest.approx(path.stat().st_size, rel=0.02)
    assert said.num_vectors == NUM
    assert said.tried_rows == 10_240
    least, most = said.train_s
    assert 0 <= least <= most < 60
    assert 0 < said.add_s < 60
    assert said.memory_bytes >= said.vector_bytes + said.train_bytes


def test_codes_that_few_vectors_cannot_train_are_said_to_be_unknown(vectors: Vectors) -> None:
    said = forecast_ann(vectors, "PQ4x14np")  # which needs 16,384
    assert said.index_bytes is None
    assert "size is not known: it cannot be trained on 10240 vectors" in str(said)


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

    monkeypatch.setattr(AnnIndex, "build", lambda *_: pytest.fail("trained"))
    with monkeypatch.context() as patch:
        patch.setattr("psutil.disk_usage", lambda _: SimpleNamespace(free=4_000))
        with pytest.raises(ConfigError, match=r"index needs .* MB of disk, 0\.0 MB free; choose"):
            build()
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda: 1_000)
        sentence = r"ann: building SQ8 needs .* GB, .* free; free some memory, or choose a factory"
        with pytest.raises(ConfigError, match=sentence):
            build()
    assert not (world / "index" / "ann").exists()


def test_an_older_index_makes_room_for_the_new_one(
    vectors: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = forecast_ann(vectors, "SQ8")
    assert said.index_bytes is not None
    (tmp_path / "ann").mkdir()
    with (tmp_path / "ann" / "index.faiss").open("wb") as out:
        os.truncate(out.fileno(), said.index_bytes)
    monkeypatch.setattr("psutil.disk_usage", lambda _: SimpleNamespace(free=100))
    refuse_too_large(said, tmp_path / "ann")
    (tmp_path / "ann" / "index.faiss").unlink()
    with pytest.raises(ConfigError, match="make room"):
        refuse_too_large(said, tmp_path / "ann")


def test_the_command_says_it_first(made: Path, tmp_path: Path) -> None:
    world = tmp_path / "world"
    shutil.copytree(made, world)
    flags = ["--index", str(world / "index"), "--encoder", str(world / "encoder")]
    done = CliRunner().invoke(app, ["ann", *flags, "--factory", "IVF4,SQ8", "--samples", "5"])
    assert done.exit_code == 0, done.output
    assert "IVF4,SQ8 over 200 vectors: 0.0 MB of disk" in done.stderr
    assert "to train and about" in done.stderr
    assert "ranks equal" in done.stdout
