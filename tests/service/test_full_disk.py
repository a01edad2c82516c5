"""A disk that takes no more while an index or a model is written: a sentence that names the file.

A limit on the size of files stands for it, which needs no rights: the system cuts a write short and
then refuses, as a full disk does, and numpy and safetensors pass it on in their own ways.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_corpus import make_tiny_sentence_model, random_passages, write_corpus

from convsearch.errors import WriteError
from convsearch.files import atomic_write, writing
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.dense import build_dense_index
from retriever_server.saving import mapped_array, save_array

PASSAGES = random_passages(3_000)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """For this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sizes_of(folder: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.json", "manifest.json")
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES)


def test_an_index_that_does_not_fit_is_a_sentence_with_the_file(
    corpus: Path, tmp_path: Path
) -> None:
    """At every size at which another file is the first that does not fit."""
    build_bm25_index(corpus, tmp_path / "whole")
    for number, size in enumerate(sorted(set(sizes_of(tmp_path / "whole").values()))[3:]):
        out = tmp_path / f"index{number}"
        with (
            files_of_at_most(size - 1),
            pytest.raises(WriteError, match=r"\.(npy|jsonl|txt)\b.*: cannot be written"),
        ):
            build_bm25_index(corpus, out)
        assert not out.exists(), "nothing is claimed"
        build_bm25_index(corpus, out)
        assert sizes_of(out) == sizes_of(tmp_path / "whole"), "and the rest can be made"


def test_a_dense_index_too(corpus: Path, tmp_path: Path) -> None:
    encoder = make_tiny_sentence_model(tmp_path / "encoder")
    few = write_corpus(tmp_path, PASSAGES[:200])
    with files_of_at_most(3_000), pytest.raises(WriteError, match=r"cannot be written.*make room"):
        build_dense_index(few, tmp_path / "dense", encoder_path=encoder, dtype="float32")
    assert not (tmp_path / "dense").exists()


def test_a_mapped_array_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    with files_of_at_most(50_000), pytest.raises(WriteError, match=r"docs\.npy: cannot be written"):
        mapped_array(tmp_path / "docs.npy", np.uint16, 40_000)
    array = mapped_array(tmp_path / "docs.npy", np.uint16, 40_000)
    array[:] = 7
    assert (tmp_path / "docs.npy").stat().st_blocks * 512 >= 80_000, "its room is taken"
    assert np.load(tmp_path / "docs.npy").sum() == 280_000


def test_what_numpy_safetensors_and_text_say_becomes_one_sentence(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    numbers = np.zeros(20_000)
    with files_of_at_most(50_000):
        with pytest.raises(WriteError, match=r"a\.npy: cannot be written .*make room"):
            save_array(tmp_path / "a.npy", numbers)
        with (
            pytest.raises(WriteError, match=r"m\.safetensors: cannot be written"),
            writing(tmp_path / "m.safetensors"),
        ):
            save_file({"a": numbers}, tmp_path / "m.safetensors")
        with (
            pytest.raises(WriteError, match=r"t\.jsonl: cannot be written \(File too large\)"),
            atomic_write(tmp_path / "t.jsonl") as out,
        ):
            out.write("word " * 20_000)
    assert not (tmp_path / "t.jsonl").exists()


def test_other_errors_of_a_block_stay_what_they_are(tmp_path: Path) -> None:
    for error in (ConnectionResetError(104, "reset"), OSError("odd"), KeyError("k")):
        with pytest.raises(type(error)) as caught, writing(tmp_path / "f"):
            raise error
        assert caught.value is error
