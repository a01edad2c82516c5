"""Approximate indexes: a killed build goes on behind its last snapshot, with the same bytes."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from dense_case import make_vectors
from small_corpus import make_tiny_sentence_model, random_passages, write_corpus
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import ConfigError, WriteError
from retriever_server.dense import ann_build
from retriever_server.dense.ann import AnnIndex
from retriever_server.dense.ann_build import Progress, Snapshots, build_ann, in_making
from retriever_server.dense.faiss_index import import_faiss
from retriever_server.dense.vectors import Vectors
from retriever_server.indexing.ann import build_ann_index
from retriever_server.indexing.dense import build_dense_index

ROOT = Path(__file__).parents[2]
BLOCK, NUM, DIM = 1024, 5 * 1024 + 500, 24
"""A block ends where a shard does."""
PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from retriever_server.dense import ann_build
from retriever_server.dense.vectors import Vectors

out, factory, kill_at = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
ann_build._SNAPSHOT_SHARE = 0

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def progress(what, done):
    if what == kill_at == "training" and not done:
        threading.Timer(0.2, kill).start()
    if what == "adding" and kill_at.isdigit() and done >= int(kill_at):
        kill()
    if kill_at == "renaming" and done == 2048:
        Path.replace = kill_at_snapshot
    print(what, done, flush=True)

rename = Path.replace

def kill_at_snapshot(path, target):
    kill() if path.suffix == ".tmp" and target.name == "index.faiss" else rename(path, target)

vectors = Vectors(out.with_name("vectors"))
with ann_build.in_making(out, vectors, factory) as snapshots:
    ann_build.build_ann(vectors, factory, snapshots, snapshot_s=0, on_progress=progress)
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With more the links of a graph depend on which comes first."""
    monkeypatch.setattr(ann_build, "_SNAPSHOT_SHARE", 0)
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture
def vectors(tmp_path: Path) -> Vectors:
    values_ND = np.random.default_rng(0).standard_normal((NUM, DIM), dtype=np.float32)
    return make_vectors(tmp_path / "vectors", values_ND, shard_rows=BLOCK)


def build(vectors: Vectors, factory: str, progress: Progress | None = None) -> list[int]:
    """Builds `ann` beside the vectors; returns what was found of an earlier build."""
    found: list[int] = []
    with in_making(vectors.folder.with_name("ann"), vectors, factory) as snapshots:
        build_ann(
            vectors, factory, snapshots,
            snapshot_s=0, on_resume=found.append, on_progress=progress,
        )  # fmt: skip
    return found


def made(vectors: Vectors) -> bytes:
    """The finished index, beside which nothing is left."""
    whole = vectors.folder.with_name("ann")
    assert {path.name for path in whole.parent.iterdir()} <= {"ann", "vectors", "unbroken"}
    assert [path.name for path in whole.iterdir()] == ["index.faiss"]
    return (whole / "index.faiss").read_bytes()


def unbroken(vectors: Vectors, factory: str) -> bytes:
    with in_making(vectors.folder.with_name("unbroken"), vectors, factory) as snapshots:
        build_ann(vectors, factory, snapshots)
    return (vectors.folder.with_name("unbroken") / "index.faiss").read_bytes()


def stop_at(what: str, number: float) -> Callable[[str, float], None]:
    """Ctrl-C there."""

    def progress(now: str, done: float) -> None:
        if now == what and done >= number:
            raise KeyboardInterrupt

    return progress


def stopped(vectors: Vectors, factory: str, what: str, number: float) -> list[int]:
    """A build that is ended by Ctrl-C; returns what it found of an earlier one."""
    found: list[int] = []
    with (
        pytest.raises(KeyboardInterrupt),
        in_making(vectors.folder.with_name("ann"), vectors, factory) as snapshots,
    ):
        build_ann(
            vectors, factory, snapshots, snapshot_s=0, on_resume=found.append,
            on_progress=stop_at(what, number),
        )  # fmt: skip
    return found


def kill(vectors: Vectors, factory: str, where: str) -> list[str]:
    """What a build said before it was killed there."""
    out = vectors.folder.with_name("ann")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, out, factory, where],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not out.exists()
    return ended.stdout.splitlines()


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "HNSW8", "PQ6x4"])
def test_a_build_killed_while_adding_goes_on_and_equals_an_unbroken_one(
    vectors: Vectors, factory: str
) -> None:
    whole = unbroken(vectors, factory)
    assert kill(vectors, factory, str(3 * BLOCK))[-1] == f"adding {2 * BLOCK}"
    done: list[tuple[str, float]] = []
    found = build(vectors, factory, lambda what, number: done.append((what, number)))
    assert found == [2 * BLOCK]
    assert done[0] == ("training", 1)
    assert done[1:] == [("adding", number * BLOCK) for number in (2, 3, 4, 5)] + [("adding", NUM)]
    assert made(vectors) == whole
    queries_QD = np.random.default_rng(1).standard_normal((20, DIM), dtype=np.float32)
    lists = [
        AnnIndex.read(vectors.folder.with_name(name) / "index.faiss", "").lists(
            vectors, np.arange(NUM), queries_QD, NUM
        )
        for name in ("ann", "unbroken")
    ]
    for (near, scores), (whole_near, whole_scores) in zip(*lists, strict=True):
        assert len(set(near.tolist())) == len(near) > 50
        assert near.tolist() == whole_near.tolist()
        assert scores.tolist() == whole_scores.tolist()


@pytest.mark.parametrize("factory", ["PCA8,HNSW8,RFlat", "PCA8,IVF8,PQ4x4fs"])
def test_so_do_those_of_several_layers(vectors: Vectors, factory: str) -> None:
    assert stopped(vectors, factory, "adding", 3 * BLOCK) == []
    assert build(vectors, factory) == [2 * BLOCK]
    assert made(vectors) == unbroken(vectors, factory)


def test_a_build_killed_in_training_begins_anew_and_later_keeps_its_training(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = "PQ24"  # whose codes FAISS orders for seconds
    assert kill(vectors, factory, "training") == ["training 0"]
    begun = vectors.folder.with_name("ann.partial")
    assert sorted(path.name for path in begun.rglob("*")) == ["job.json", "lock", "whole"]
    factory = "PQ6x4"
    shutil.rmtree(begun)
    assert kill(vectors, factory, "0") == ["training 0", "training 1"]
    whole = unbroken(vectors, factory)
    monkeypatch.setattr(ann_build, "new_index", lambda *_: pytest.fail("trained again"))
    assert build(vectors, factory) == [0]
    assert made(vectors) == whole


def test_a_kill_between_card_and_file_leaves_the_snapshot_before(vectors: Vectors) -> None:
    assert kill(vectors, "IVF16,SQ8", "renaming")[-1] == f"adding {2 * BLOCK}"
    left = vectors.folder.with_name("ann.partial")
    assert (left / "snapshot.tmp").is_file()
    assert build(vectors, "IVF16,SQ8") == [BLOCK]
    assert made(vectors) == unbroken(vectors, "IVF16,SQ8")


@pytest.mark.parametrize("harm", ["cut", "changed", "foreign", "no card", "foreign card"])
def test_a_snapshot_that_is_not_as_written_costs_the_work_and_nothing_else(
    vectors: Vectors, harm: str
) -> None:
    stopped(vectors, "IVF16,SQ8", "adding", 3 * BLOCK)
    left = vectors.folder.with_name("ann.partial")
    snapshot, card = left / "whole" / "index.faiss", left / "snapshots.json"
    data = snapshot.read_bytes()
    whole = unbroken(vectors, "IVF16,SQ8")
    if harm == "cut":
        snapshot.write_bytes(data[:-100])
    elif harm == "changed":
        snapshot.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "foreign":
        snapshot.write_bytes(unbroken(vectors, "IVF8,SQ8"))
    elif harm == "no card":
        card.unlink()
    else:
        facts = json.loads(card.read_text())
        facts["settings"]["factory"] = "IVF8,SQ8"
        card.write_text(json.dumps(facts))
    assert build(vectors, "IVF16,SQ8") == []
    assert made(vectors) == whole


def test_another_factory_and_other_vectors_are_refused_and_nothing_is_lost(
    vectors: Vectors,
) -> None:
    stopped(vectors, "IVF16,SQ8", "adding", 3 * BLOCK)
    sentence = r"begun with factory = 'IVF16,SQ8', now 'HNSW8'; .*or delete this folder"
    with pytest.raises(ConfigError, match=sentence):
        build(vectors, "HNSW8")
    facts = vectors.folder / "vectors.json"
    text = facts.read_text()
    facts.write_text(text + "\n")
    with pytest.raises(ConfigError, match="begun with vectors_sha256 = "):
        build(vectors, "IVF16,SQ8")
    facts.write_text(text)
    with in_making(vectors.folder.with_name("other"), vectors, "IVF16,SQ8"):
        pass  # of another name nothing is in the way
    assert build(vectors, "IVF16,SQ8") == [2 * BLOCK]


def test_one_process_at_a_time(vectors: Vectors) -> None:
    def second(what: str, done: float) -> None:
        if (what, done) == ("adding", 2 * BLOCK):
            with pytest.raises(ConfigError, match="another process is building this index"):
                build(vectors, "IVF16,SQ8")

    build(vectors, "IVF16,SQ8", second)
    assert made(vectors) == unbroken(vectors, "IVF16,SQ8")


def test_ctrl_c_keeps_the_last_snapshot_and_before_the_first_nothing(vectors: Vectors) -> None:
    assert stopped(vectors, "IVF16,SQ8", "training", 0) == []
    assert [path.name for path in vectors.folder.parent.iterdir()] == ["vectors"]
    assert stopped(vectors, "IVF16,SQ8", "adding", 2 * BLOCK) == []
    assert stopped(vectors, "IVF16,SQ8", "adding", 4 * BLOCK) == [BLOCK]
    assert build(vectors, "IVF16,SQ8") == [3 * BLOCK]


def test_an_older_index_stays_until_the_new_one_is_whole(vectors: Vectors) -> None:
    build(vectors, "IVF16,SQ8")
    before = made(vectors)
    stopped(vectors, "HNSW8", "adding", 2 * BLOCK)
    assert (vectors.folder.with_name("ann") / "index.faiss").read_bytes() == before
    build(vectors, "HNSW8")
    assert made(vectors) == unbroken(vectors, "HNSW8")


def test_snapshots_take_a_tenth_of_the_time(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each block and each snapshot takes a second."""
    clock, saved = count(), []
    now = [0.0]
    decode, save = ann_build.as_float32, Snapshots.save

    def as_float32(block):
        now[0] += 1
        return decode(block)

    def slow_save(self, index):
        now[0] += 1
        saved.append(index.ntotal)
        save(self, index)

    monkeypatch.setattr(ann_build, "_SNAPSHOT_SHARE", 3)
    monkeypatch.setattr(ann_build, "as_float32", as_float32)
    monkeypatch.setattr(Snapshots, "save", slow_save)
    monkeypatch.setattr("time.monotonic", lambda: now[0] + next(clock) * 1e-6)
    build(vectors, "SQ8")
    assert saved == [0, 4 * BLOCK, NUM]  # a hair after three seconds


def test_a_full_disk_is_a_sentence_and_the_last_snapshot_stays(vectors: Vectors) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(what: str, done: float) -> None:
        if (what, done) == ("adding", 2 * BLOCK):
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))

    try:
        with pytest.raises(WriteError, match=r"snapshot.tmp: FAISS could not write it .*make room"):
            build(vectors, "SQ8", full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (vectors.folder.with_name("ann.partial") / "snapshot.tmp").exists()
    assert build(vectors, "SQ8") == [BLOCK]
    assert made(vectors) == unbroken(vectors, "SQ8")


def test_the_command_says_from_where_it_goes_on(tmp_path: Path) -> None:
    make_tiny_sentence_model(tmp_path / "encoder")
    corpus = write_corpus(tmp_path, random_passages(200))
    index = tmp_path / "index"
    build_dense_index(corpus, index, encoder_path=tmp_path / "encoder")
    with pytest.raises(KeyboardInterrupt):
        build_ann_index(
            index, encoder_path=tmp_path / "encoder", factory="IVF4,SQ8", searches=[""],
            on_progress=stop_at("measuring", 0),
        )  # fmt: skip
    flags = ["--index", str(index), "--encoder", str(tmp_path / "encoder")]
    done = CliRunner().invoke(app, ["ann", *flags, "--factory", "HNSW8"])
    assert "begun with factory = 'IVF4,SQ8', now 'HNSW8'" in str(done.exception)
    done = CliRunner().invoke(app, ["ann", *flags, "--factory", "IVF4,SQ8", "--samples", "5"])
    assert done.exit_code == 0, done.output
    assert "trained already; goes on after 200 vectors: about 0 s to add the rest" in done.stderr
    assert "single call" not in done.stderr
    assert sorted(path.name for path in (index / "ann").iterdir()) == ["ann.json", "index.faiss"]
    assert not [*index.glob("*partial*")]
