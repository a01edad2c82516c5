"""Building Lucene indexes: a killed build goes on behind its last commit, with the same ranks."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lucene_case import needs_lucene
from small_corpus import random_passages, random_queries, write_corpus
from typer.testing import CliRunner

from convsearch.cli.checks import FAIL, OK, index_files
from convsearch.cli.main import app
from convsearch.errors import ConfigError, DataError
from convsearch.types import Passage
from retriever_server.backends.lucene import LuceneBackend
from retriever_server.indexing.lucene import BATCH_SIZE, build_lucene_index
from retriever_server.loading import load_backend
from retriever_server.lucene.jvm import jvm
from retriever_server.manifest import PAGE_BYTES, read_manifest, write_manifest
from retriever_server.settings import IndexSettings

pytestmark = needs_lucene
ROOT = Path(__file__).parents[2]
NUM_PASSAGES = 5 * BATCH_SIZE + 500
PASSAGES = random_passages(NUM_PASSAGES)
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from retriever_server.indexing.lucene import build_lucene_index

corpus, out = map(Path, sys.argv[1:3])
made = Path(f"{out}.partial") / "whole"

def print_now(done):
    print(done, flush=True)

def progress(done):
    if done >= int(sys.argv[3]):
        while not list(made.glob("_*")):  # Java has not begun with what it took
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

build_lucene_index(corpus, out, threads=2, commit_s=0, on_resume=print_now, on_progress=progress)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES)


@pytest.fixture(scope="module")
def unbroken(corpus: Path) -> Path:
    build_lucene_index(corpus, corpus.with_name("unbroken"))
    return corpus.with_name("unbroken")


@pytest.fixture(scope="module")
def killed(corpus: Path) -> Path:
    """What a build leaves that was killed twice: before its first commit, and after its second."""
    out = corpus.with_name("index")
    for kill_at in (BATCH_SIZE, 3 * BATCH_SIZE):
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, corpus, out, str(kill_at)],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, ""), ended.stderr
        assert not out.exists()
    return corpus.with_name("index.partial")


@pytest.fixture
def left(killed: Path, tmp_path: Path) -> Path:
    """A copy of it, under the name that the index `tmp_path / "index"` needs."""
    shutil.copytree(killed, tmp_path / "index.partial")
    return tmp_path / "index.partial"


def files_of_commit(index: Path) -> list[str]:
    """What Lucene says that the index consists of."""

    def ask(named):
        place = named("java.io.File")(str(index)).toPath()
        directory = named("org.apache.lucene.store.FSDirectory").open(place)
        commit = named("org.apache.lucene.index.SegmentInfos").readLatestCommit(directory)
        return sorted(commit.files(True).toArray())

    return jvm().call(ask)


def stopped(corpus: Path, out: Path, stop_at: int) -> list[int]:
    """Ctrl-C after so many passages; returns what was found of an earlier build."""
    found: list[int] = []

    def progress(done: int) -> None:
        if done >= stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_lucene_index(corpus, out, commit_s=0, on_resume=found.append, on_progress=progress)
    return found


def test_a_killed_build_goes_on_and_equals_an_unbroken_one(
    corpus: Path, unbroken: Path, left: Path
) -> None:
    out = left.with_name("index")
    found: list[int] = []
    done: list[int] = []
    manifest = build_lucene_index(corpus, out, on_resume=found.append, on_progress=done.append)
    assert found == [2 * BATCH_SIZE]
    assert done == [3 * BATCH_SIZE, 4 * BATCH_SIZE, 5 * BATCH_SIZE, NUM_PASSAGES]
    assert manifest["num_passages"] == NUM_PASSAGES
    assert [path.name for path in out.parent.iterdir()] == ["index"]
    resumed, whole = LuceneBackend.load(out), LuceneBackend.load(unbroken)
    assert resumed.info == whole.info
    assert sorted(read_manifest(out)["files"]) == files_of_commit(out), "nothing of the killed ones"
    ids = [passage.doc_id for passage in PASSAGES]
    assert resumed.info.num_passages == len(ids), "as many as there are, ..."
    assert resumed.unknown(ids) == [], "... and none is missing, so none is there twice"
    assert resumed.passages(ids) == PASSAGES
    queries = random_queries(40)
    assert resumed.search(queries, 500) == whole.search(queries, 500)
    golds = [[PASSAGES[i * NUM_PASSAGES // 40].doc_id] for i in range(40)]
    ranks = resumed.ranks(queries, golds, NUM_PASSAGES)
    assert ranks == whole.ranks(queries, golds, NUM_PASSAGES)
    assert len(set(ranks)) > 20


def test_the_command_says_from_where_it_goes_on(corpus: Path, left: Path) -> None:
    out = left.with_name("index")
    command = ["index", "--engine", "lucene", "--corpus", str(corpus), "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"goes on after {2 * BATCH_SIZE:,} passages" in done.stderr
    assert f"index of {NUM_PASSAGES} passages" in done.stdout


def test_another_corpus_and_other_settings_are_refused_and_nothing_is_lost(
    corpus: Path, left: Path
) -> None:
    out = left.with_name("index")
    other = write_corpus(left.parent, PASSAGES[1:])
    with pytest.raises(ConfigError, match=r"begun with corpus_sha256 = .*or delete this folder"):
        build_lucene_index(other, out)
    with pytest.raises(ConfigError, match=r"begun with k1 = 0\.9, now 1\.2"):
        build_lucene_index(corpus, out, k1=1.2)
    assert stopped(corpus, out, 0) == [2 * BATCH_SIZE]


def test_ctrl_c_keeps_what_was_committed_and_no_more(corpus: Path, tmp_path: Path) -> None:
    assert stopped(corpus, tmp_path / "index", 2 * BATCH_SIZE) == []
    assert stopped(corpus, tmp_path / "index", NUM_PASSAGES) == [BATCH_SIZE]
    assert stopped(corpus, tmp_path / "index", NUM_PASSAGES) == [5 * BATCH_SIZE]
    build_lucene_index(corpus, tmp_path / "index")
    assert LuceneBackend.load(tmp_path / "index").info.num_passages == NUM_PASSAGES


def test_a_build_that_lacked_only_its_name_is_finished(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("retriever_server.making.put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            build_lucene_index(corpus, tmp_path / "index")
    found: list[int] = []
    build_lucene_index(corpus, tmp_path / "index", on_resume=found.append)
    assert found == [NUM_PASSAGES]
    assert index_files(tmp_path / "index").state == OK


@pytest.mark.parametrize("harm", ["no commit", "cut commit", "other number"])
def test_a_commit_that_cannot_be_read_costs_the_work_and_nothing_else(
    corpus: Path, left: Path, harm: str
) -> None:
    commit = next((left / "whole").glob("segments_*"))
    if harm == "no commit":
        commit.unlink()
    elif harm == "cut commit":
        commit.write_bytes(commit.read_bytes()[:-20])
    else:
        commit.write_bytes(commit.read_bytes().replace(b"4000", b"4001"))
    found: list[int] = []
    build_lucene_index(corpus, left.with_name("index"), on_resume=found.append)
    assert found == []
    assert LuceneBackend.load(left.with_name("index")).info.num_passages == NUM_PASSAGES


def test_a_corpus_at_fault_is_named_whenever_and_leaves_nothing(
    corpus: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "corpus.jsonl"
    for line, sentence in (
        ('{"doc_id": "x", "title": ""}', f'corpus.jsonl:{NUM_PASSAGES + 1}: field "text"'),
        (corpus.read_text().split("\n", 1)[0], "occurs twice, first in line 1;"),
    ):
        bad.write_text(f"{corpus.read_text()}{line}\n")
        assert stopped(bad, tmp_path / "index", 2 * BATCH_SIZE) == []
        found: list[int] = []
        with pytest.raises(DataError, match=sentence):  # the repeated id was committed before
            build_lucene_index(bad, tmp_path / "index", on_resume=found.append)
        assert found == [BATCH_SIZE]
        assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_damage_is_found_as_in_other_indexes(tmp_path: Path) -> None:
    copy = tmp_path / "index"
    rng = random.Random(1)
    words = " ".join(rng.randbytes(20).hex() for _ in range(40_000))
    corpus = write_corpus(tmp_path, [Passage(doc_id="long", title="", text=words)])
    build_lucene_index(corpus, copy)
    assert index_files(copy).state == OK
    load_backend(IndexSettings(index_path=copy, verify=True))
    path = max(copy.glob("_*"), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    between = PAGE_BYTES + 100  # the first page of the sample and before the second
    assert len(whole) > 16 * PAGE_BYTES
    path.write_bytes(whole[:between] + bytes([whole[between] ^ 1]) + whole[between + 1 :])
    load_backend(IndexSettings(index_path=copy))
    with pytest.raises(DataError, match=rf"{path.name} not what was written; copy it"):
        load_backend(IndexSettings(index_path=copy, verify=True))
    finding = index_files(copy)
    assert (finding.state, f"{path.name} not as made" in finding.found) == (FAIL, True)
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{path.name}: has \d+ bytes, it was made with"):
        LuceneBackend.load(copy)


def test_an_index_from_before_lists_no_files_and_keeps_its_fingerprint(
    unbroken: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(unbroken, old)
    facts = json.loads((old / "manifest.json").read_text())
    for name in ("files", "facts_sha256", "format", "format_version", "engine"):
        del facts[name]
    write_manifest(old, "lucene", facts)
    assert "files" not in read_manifest(old)
    load_backend(IndexSettings(index_path=old, verify=True))
    assert LuceneBackend.load(old).info == LuceneBackend.load(unbroken).info
    assert "were not read" in index_files(old).found
