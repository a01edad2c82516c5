"""An index that is written into, cut short, deleted or replaced while it is served."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from live_server import door, serving, until
from lucene_case import anserini_index, needs_lucene
from small_corpus import (
    WORDS,
    make_tiny_sentence_model,
    random_passages,
    random_queries,
    write_corpus,
)

from convsearch.errors import DataError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Hit
from retriever_server.app import create_app
from retriever_server.dense.ann import ANN
from retriever_server.indexing.ann import build_ann_index
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.dense import build_dense_index
from retriever_server.integrity import BackgroundCheck
from retriever_server.loading import load_backend
from retriever_server.manifest import put_in_place
from retriever_server.settings import IndexSettings
from retriever_server.watch import FRESH_S, IndexChangedError, IndexWatch

PASSAGES = random_passages(9_000)
QUERIES = [*random_queries(20), *WORDS]
ASKED = {"queries": QUERIES, "gold_ids": [[PASSAGES[i].doc_id] for i in range(len(QUERIES))]}
LISTED = {"queries": QUERIES[:5], "topk": 5, "return_scores": True}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `bm25`, `other`, `dense` and `encoder`."""
    folder = tmp_path_factory.mktemp("watch")
    corpus = write_corpus(folder, PASSAGES)
    build_bm25_index(corpus, folder / "bm25")
    build_bm25_index(corpus, folder / "other", k1=3.0, b=1.0)
    few = folder / "few"
    few.mkdir()
    encoder = make_tiny_sentence_model(folder / "encoder")
    corpus = write_corpus(few, PASSAGES[:300])
    build_dense_index(corpus, folder / "dense", encoder_path=encoder, dtype="float32")
    return folder


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """Of the BM25 index, to be damaged."""
    return Path(shutil.copytree(world / "bm25", tmp_path / "copy"))


@contextmanager
def client_of(settings: IndexSettings) -> Iterator[httpx.Client]:
    watch = IndexWatch({"default": settings.watched})
    engine, _ = load_backend(settings)
    watch.settle()
    with (
        serving(create_app(engine, watch=watch)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        until(lambda: client.get("/readyz").is_success, "the server")
        yield client


def flip(path: Path, at: int | None = None) -> None:
    """One bit, in place, as a program does that writes into a file or maps it."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 if at is None else at)
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    time.sleep(2 * FRESH_S)


def refused(client: httpx.Client, said: str) -> None:
    """Every way to ask is 503 with this sentence, and stays so."""
    ready = client.get("/readyz")
    assert (ready.status_code, said in ready.json()["error"]) == (503, True), ready.text
    assert "Retry-After" not in ready.headers
    for path, body in (("/retrieve", ASKED), ("/retrieve", LISTED), ("/passages", {"doc_ids": []})):
        answer = client.post(path, json=body)
        assert (answer.status_code, said in answer.json()["error"]) == (503, True), answer.text
    assert client.get("/livez").status_code == 200


def test_a_flipped_bit_in_any_file_is_never_a_wrong_answer(world: Path, tmp_path: Path) -> None:
    names = [path.name for path in sorted((world / "bm25").iterdir()) if path.name != "run.json"]
    assert len(names) > 15
    for name in names:
        served = Path(shutil.copytree(world / "bm25", tmp_path / name))
        with client_of(IndexSettings(index_path=served)) as client:
            right = client.post("/retrieve", json=ASKED).json()
            flip(served / name)
            answer = client.post("/retrieve", json=ASKED)
            assert answer.status_code == 503, f"{name}: {answer.json() == right}"
            assert f"{served / name}: was changed while it is served" in answer.json()["error"]
            refused(client, "start the server again")


@pytest.mark.parametrize("kind", ["hybrid", "dense", "encoder", "ann"])
def test_every_engine_is_watched(kind: str, world: Path, tmp_path: Path) -> None:
    def own(name: str) -> Path:
        return Path(shutil.copytree(world / name, tmp_path / name))

    if kind == "hybrid":
        settings = IndexSettings(index_path=world / "bm25", fuse_with=own("other"))
        folder = tmp_path / "other"
    else:
        settings = IndexSettings(index_path=own("dense"), encoder_path=own("encoder"))
        assert settings.encoder_path is not None
        folder = settings.index_path
        if kind == "ann":
            build_ann_index(
                settings.index_path,
                encoder_path=settings.encoder_path,
                factory="Flat",
                searches=[""],
            )
            folder = settings.index_path / ANN
        if kind == "encoder":
            folder = tmp_path / "encoder"
    gold = {"queries": QUERIES, "gold_ids": [[PASSAGES[i].doc_id] for i in range(len(QUERIES))]}
    largest = max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    with client_of(settings) as client:
        assert client.post("/retrieve", json=gold).status_code == 200
        flip(largest)
        refused(client, f"{largest}: was changed")


@needs_lucene
def test_a_lucene_index_of_another_program_is_watched(tmp_path: Path) -> None:
    folder = anserini_index(PASSAGES[:50], tmp_path, "-storeRaw")
    with client_of(IndexSettings(index_path=folder)) as client:
        assert client.post("/retrieve", json={"query": "amber"}).status_code == 200
        flip(max(folder.iterdir(), key=lambda path: path.stat().st_size))
        refused(client, "was changed")


def test_a_file_cut_short_does_not_end_the_process(copy: Path) -> None:
    with door("--index_path", str(copy)) as (process, url):
        assert httpx.post(url + "/retrieve", json=ASKED, timeout=60).status_code == 200
        os.truncate(copy / "term_postings.npy", 100)
        time.sleep(2 * FRESH_S)
        with httpx.Client(base_url=url, timeout=60) as client:
            refused(client, "to 100 bytes while it is served")
        assert process.poll() is None


@pytest.mark.parametrize("folder", ["dense", "encoder"])
def test_a_dense_index_or_encoder_cut_short_neither(
    folder: str, world: Path, tmp_path: Path
) -> None:
    for name in ("dense", "encoder"):
        shutil.copytree(world / name, tmp_path / name)
    largest = max(
        (path for path in (tmp_path / folder).rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    asked = {"queries": QUERIES[:5], "gold_ids": [[passage.doc_id] for passage in PASSAGES[:5]]}
    flags = ["--index_path", str(tmp_path / "dense"), "--encoder_path", str(tmp_path / "encoder")]
    with door(*flags) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
        assert client.post("/retrieve", json=asked).status_code == 200
        os.truncate(largest, 100)
        time.sleep(2 * FRESH_S)
        refused(client, "to 100 bytes while it is served")
        assert process.poll() is None


def test_a_dense_index_that_is_deleted_is_served_on(world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(world / "dense", tmp_path / "dense"))
    asked = {"queries": QUERIES[:5], "gold_ids": [[passage.doc_id] for passage in PASSAGES[:5]]}
    with client_of(IndexSettings(index_path=copy, encoder_path=world / "encoder")) as client:
        right = client.post("/retrieve", json=asked).json(), client.post("/retrieve", json=LISTED)
        shutil.rmtree(copy)
        time.sleep(2 * FRESH_S)
        assert client.post("/retrieve", json=asked).json() == right[0]
        assert client.post("/retrieve", json=LISTED).json() == right[1].json()
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("how", ["deleted", "rebuilt", "one file replaced"])
def test_what_is_mapped_is_served_on(how: str, copy: Path, world: Path, tmp_path: Path) -> None:
    with client_of(IndexSettings(index_path=copy)) as client:
        right = client.post("/retrieve", json=ASKED).json(), client.post("/retrieve", json=LISTED)
        if how == "deleted":
            shutil.rmtree(copy)
        elif how == "rebuilt":
            put_in_place(Path(shutil.copytree(world / "other", tmp_path / "made")), copy)
        else:
            shutil.copy(world / "other" / "lengths.npy", tmp_path / "new")
            (tmp_path / "new").replace(copy / "lengths.npy")
        for _ in range(2):
            assert client.post("/retrieve", json=ASKED).json() == right[0]
            assert client.post("/retrieve", json=LISTED).json() == right[1].json()
            assert client.get("/readyz").status_code == 200


def test_a_change_during_a_search_spoils_all_answers_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    watched = tmp_path / "i" / "arrays"
    watched.write_bytes(b"right")
    watch = IndexWatch({"default": [tmp_path / "i"]})

    class Changed(InMemoryRetriever):
        """Somebody writes while it searches for `castle`; what it raises then is no matter."""

        def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
            if any("castle" in query for query in queries):
                watched.write_bytes(b"wrong!")
                raise IndexError("an offset behind the end")
            return super().search(queries, topk)

    with serving(create_app(Changed(PASSAGES[:50]), watch=watch)) as url:
        until(lambda: httpx.get(url + "/readyz").is_success, "the server")
        assert httpx.post(url + "/retrieve", json={"query": "amber"}).status_code == 200
        with ThreadPoolExecutor(4) as pool:
            asks = [
                pool.submit(httpx.post, url + "/retrieve", json={"query": "castle"}, timeout=60)
                for _ in range(4)
            ]
            for one in asks:
                assert one.result().status_code == 503
                assert "from 5 to 6 bytes" in one.result().json()["error"]
        page = httpx.get(url + "/metrics").text
    assert 'retriever_rejected_total{reason="damaged"}' in page


def test_an_index_that_changes_while_it_is_opened_is_not_served(copy: Path) -> None:
    watch = IndexWatch({"default": [copy]})
    watch.settle()
    replaced = copy / "lengths.npy"
    shutil.copy(replaced, copy / "new")
    (copy / "new").replace(replaced)
    with pytest.raises(DataError, match=r"lengths.npy: was changed or replaced while the server"):
        watch.settle()


def test_what_a_shard_saw_is_known_to_the_front(copy: Path) -> None:
    watch = IndexWatch({"default": [copy]})

    def search() -> None:
        raise IndexChangedError("shard 2: /elsewhere/docs.npy: was changed while it is served")

    with pytest.raises(IndexChangedError, match="shard 2"):
        watch.guarded("default", search)
    assert "shard 2" in (watch.damage("default") or "")
    with pytest.raises(IndexChangedError, match="shard 2"):
        watch.guarded("default", lambda: None)


def test_a_change_that_sets_the_time_back_is_found_by_reading_again(copy: Path) -> None:
    check = BackgroundCheck({"default": [copy]}, pace=0, again_s=0.05)
    check.start()
    until(lambda: check.checked["default"] == 1.0, "the first reading")
    path = copy / "docs.npy"
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    until(lambda: check.damage("default") is not None, "a later reading")
    check.stop()
    check._thread.join(20)
    assert f"{path}: its content is not what was written" in (check.damage("default") or "")
    assert check.checked["default"] == 1.0


def test_shards_refuse_an_index_that_is_written_into(copy: Path) -> None:
    with (
        door("--index_path", str(copy), "--shards", "2", "--shard_cpus", "1") as (_, url),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        right = client.post("/retrieve", json=ASKED)
        assert right.status_code == 200
        assert client.post("/retrieve", json=ASKED).json() == right.json()
        flip(copy / "docs.npy")
        refused(client, "docs.npy: was changed")
