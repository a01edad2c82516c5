"""BM25 indexes of several blocks: exact scores, and the same files however they were built."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpus import random_passages, random_queries, write_corpus

from convsearch.cli.checks import FAIL, OK, WARN, index_files
from convsearch.errors import ConfigError, DataError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage
from retriever_server.analyzer import Analyzer
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.bm25.arrays import BLOCK
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.forecast import forecast_bm25, forecast_lucene
from retriever_server.loading import load_backend
from retriever_server.making import parts_and_whole
from retriever_server.manifest import PAGE_BYTES, SAMPLED_PAGES
from retriever_server.settings import IndexSettings

NUM_PASSAGES = 3 * BLOCK + 500


def rare_words(passages: list[Passage], seed: int) -> list[Passage]:
    """The passages with words of all frequencies, so that terms are missing from whole blocks."""
    rng = random.Random(seed)
    return [
        Passage(
            doc_id=f"{rng.randrange(10**6)}-{passage.doc_id}",
            title=passage.title,
            text=f"{passage.text} rare{int(rng.paretovariate(0.6))} rare{rng.randrange(4000)}",
        )
        for passage in passages
    ]


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    return rare_words(random_passages(NUM_PASSAGES), seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, passages: list[Passage]) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), passages)


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "index"
    build_bm25_index(corpus, folder)
    return folder


def same_files(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in set(names) - {"run.json"}:  # which has the time of making
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_several_blocks_score_as_the_formula_says(index_dir: Path, passages: list[Passage]) -> None:
    engine = Bm25Backend.load(index_dir)
    other = InMemoryRetriever(passages, analyze=Analyzer())
    rng = random.Random(1)
    queries = [
        f"{query} rare{int(rng.paretovariate(0.6))} rare{rng.randrange(4000)}"
        for query in random_queries(16, seed=2)
    ]
    queries += [" ".join(rng.sample(queries, 8))]
    golds = [[p.doc_id for p in rng.sample(passages, 3)] for _ in queries]
    golds[0] = [other.search(queries[:1], 90)[0][-1].doc_id]
    for depth in (10, 5000):
        assert engine.search(queries, depth) == other.search(queries, depth)
        assert engine.ranks(queries, golds, depth) == other.ranks(queries, golds, depth)


def test_gold_passages_anywhere_in_a_list_have_their_rank(index_dir: Path) -> None:
    engine = Bm25Backend.load(index_dir)
    for query in random_queries(5, seed=4):
        [hits] = engine.search([query], 300)
        golds = [[hit.doc_id] for hit in hits]
        ranks = engine.ranks([query] * len(golds), golds, 250)
        assert ranks == [*range(1, 251), *[None] * (len(golds) - 250)]


def test_parts_and_workers_change_no_byte(index_dir: Path, corpus: Path, tmp_path: Path) -> None:
    build_bm25_index(corpus, tmp_path / "parts", part_blocks=1, workers=2)
    same_files(index_dir, tmp_path / "parts")


def test_a_killed_build_goes_on_where_it_was(corpus: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from retriever_server.indexing.bm25 import build_bm25_index; "
        "build_bm25_index(Path(sys.argv[1]), Path(sys.argv[2]), part_blocks=1, workers=1, "
        "on_progress=lambda _, done: done and os.killpg(0, signal.SIGKILL))"
    )
    out = tmp_path / "index"
    build = subprocess.run([sys.executable, "-c", code, corpus, out], start_new_session=True)
    assert build.returncode == -signal.SIGKILL
    assert not out.exists()
    parts = tmp_path / "index.partial" / "parts"
    made = {path: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    resumed: list[int] = []
    build_bm25_index(
        corpus,
        out,
        part_blocks=1,
        workers=1,
        on_progress=lambda what, _: resumed.extend(
            path.stat().st_mtime_ns == made[path] for path in made if what == "analysing"
        ),
    )
    assert made
    assert resumed
    assert all(resumed), "a part that was done was made again"
    build_bm25_index(corpus, tmp_path / "unbroken")
    same_files(tmp_path / "unbroken", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index", "unbroken"]


def test_what_is_left_of_other_settings_is_neither_used_nor_lost(
    corpus: Path, tmp_path: Path
) -> None:
    def interrupted() -> None:
        with parts_and_whole(tmp_path / "index", {"corpus_sha256": "another"}) as (parts, _):
            (parts / "part-00000").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ConfigError, match="run it with the same settings, or delete"):
        build_bm25_index(corpus, tmp_path / "index")
    assert (tmp_path / "index.partial" / "parts" / "part-00000").is_dir()


def test_two_builds_of_one_index_do_not_meet(corpus: Path, tmp_path: Path) -> None:
    with (
        parts_and_whole(tmp_path / "index", {}),
        pytest.raises(ConfigError, match="another process"),
    ):
        build_bm25_index(corpus, tmp_path / "index")


def test_a_bad_line_in_a_later_part_is_named(corpus: Path, tmp_path: Path) -> None:
    bad = tmp_path / "corpus.jsonl"
    bad.write_text(corpus.read_text() + '{"doc_id": "x", "title": ""}\n')
    with pytest.raises(DataError, match=rf'corpus.jsonl:{NUM_PASSAGES + 1}: field "text"'):
        build_bm25_index(bad, tmp_path / "index", part_blocks=1)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_words_that_occur_hundreds_of_times_are_counted_exactly(tmp_path: Path) -> None:
    counts = (1, 254, 255, 256, 300, 70_000)
    passages = [Passage(doc_id=f"p{n}", title="", text="amber " * n + "falcon") for n in counts]
    passages.append(Passage(doc_id="both", title="", text="falcon " * 400 + "amber " * 400))
    build_bm25_index(write_corpus(tmp_path, passages), tmp_path / "index")
    engine = Bm25Backend.load(tmp_path / "index")
    other = InMemoryRetriever(passages, analyze=Analyzer())
    queries = ["amber", "falcon", "amber falcon"]
    assert engine.search(queries, 10) == other.search(queries, 10)


def test_the_forecast_is_of_the_right_size(corpus: Path, index_dir: Path) -> None:
    forecast = forecast_bm25(corpus)
    assert forecast.num_passages == pytest.approx(NUM_PASSAGES, rel=0.1)
    size = sum(path.stat().st_size for path in index_dir.iterdir()) / 1e6
    assert forecast.index_mb == pytest.approx(size, rel=0.5)
    assert "minutes" in str(forecast)


def test_lucenes_forecast_counts_its_heap_and_its_threads(corpus: Path) -> None:
    one, two = (forecast_lucene(corpus, heap_mb=2000, threads=n) for n in (1, 2))
    assert one.num_passages == pytest.approx(NUM_PASSAGES, rel=0.1)
    assert one.index_mb == pytest.approx(0.9 * corpus.stat().st_size / 1e6, rel=0.1)
    assert 2000 < one.memory_mb < 2500
    assert one.minutes == pytest.approx(2 * two.minutes)


def test_a_single_changed_byte_is_found(index_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    assert index_files(copy).state == OK
    content = bytearray((copy / "docs.npy").read_bytes())
    content[-1000] ^= 1
    (copy / "docs.npy").write_bytes(content)
    finding = index_files(copy)
    assert finding.state == FAIL
    assert "docs.npy not as made" in finding.found


def test_lucenes_files_are_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "segments_1").write_bytes(b"x")
    finding = index_files(tmp_path)
    assert finding.state == WARN
    assert "were not read" in finding.found
    assert "CheckIndex" in (finding.advice or "")


def test_a_file_of_another_size_is_refused_at_once(index_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    with (copy / "passages.jsonl").open("ab") as out:
        out.write(b"[]\n")
    with pytest.raises(DataError, match=r"passages\.jsonl: has \d+ bytes, it was made with"):
        Bm25Backend.load(copy)


def test_half_a_file_is_refused_at_once_and_a_byte_with_verify(
    index_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    path = copy / "passages.jsonl"
    whole = path.read_bytes()
    assert len(whole) > PAGE_BYTES * (SAMPLED_PAGES + 1)
    path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    with pytest.raises(DataError, match=r"passages\.jsonl: its content is not what was written"):
        Bm25Backend.load(copy)
    between = PAGE_BYTES + 100  # the first page of the sample and before the second
    path.write_bytes(whole[:between] + bytes([whole[between] ^ 1]) + whole[between + 1 :])
    load_backend(IndexSettings(index_path=copy))
    with pytest.raises(DataError, match=r"index: passages\.jsonl not what was written; copy it"):
        load_backend(IndexSettings(index_path=copy, verify=True))
    path.write_bytes(whole)
    load_backend(IndexSettings(index_path=copy, verify=True))


def test_an_index_from_before_the_samples_is_opened(index_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for entry in manifest["files"].values():
        del entry["sample_sha256"]
    del manifest["facts_sha256"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert len(Bm25Backend.load(copy).store) == NUM_PASSAGES
