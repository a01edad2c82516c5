"""Four shards on Ray Serve against one process: the same ranks and lists, also under loss."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from listening_sockets import listening
from live_server import START_S, door
from small_corpus import make_tiny_sentence_model, random_passages, random_queries, write_corpus

from convsearch.errors import ConfigError, RetrieverError
from convsearch.listening import is_loopback
from convsearch.retrieval.client import RetrieverClient
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.dense import DenseBackend
from retriever_server.dense.exact_rank import RankEngine
from retriever_server.dense.part import DensePart
from retriever_server.dense.vectors import Vectors
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.dense import build_dense_index
from retriever_server.indexing.dense_job import VECTORS
from retriever_server.parts import Part, Rows
from retriever_server.settings import IndexSettings
from retriever_server.shards.backend import Shard, ShardedBackend
from retriever_server.shards.keeper import MARKER
from retriever_server.shards.plan import cut, open_whole

SHARDS = 4
PASSAGES = random_passages(12_500)
FEW = PASSAGES[:3_500]
QUERIES = [*random_queries(40), "amber amber amber", "nothing known here", ""]
GOLDS = [[p.doc_id for p in FEW[i : i + 1 + i % 3]] for i in range(len(QUERIES))]
LOSSES = 5
"""Times that a shard is killed at most: it may be back before all that is asked meanwhile."""
KILLED_INSTANCE = """
import time
from retriever_server.shards.instance import own_instance
with own_instance(1):
    print("up", flush=True)
    time.sleep(600)
"""


@dataclass(frozen=True)
class Indexes:
    bm25: Path
    dense: Path
    encoder: Path


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Indexes:
    folder = tmp_path_factory.mktemp("shards")
    build_bm25_index(write_corpus(folder, PASSAGES), folder / "bm25")
    encoder = make_tiny_sentence_model(folder / "encoder")
    few = folder / "few"
    few.mkdir()
    build_dense_index(
        write_corpus(few, FEW), folder / "dense", encoder_path=encoder, dtype="float32",
        batch_size=256, shard_rows=2048,
    )  # fmt: skip
    return Indexes(folder / "bm25", folder / "dense", encoder)


@pytest.fixture(scope="module")
def bm25(indexes: Indexes) -> Bm25Backend:
    return Bm25Backend.load(indexes.bm25)


@pytest.fixture(scope="module")
def dense(indexes: Indexes) -> DenseBackend:
    return DenseBackend.load_exact(indexes.dense, indexes.encoder)


@pytest.fixture(scope="module")
def served(indexes: Indexes) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    flags = ["--index", f"bm25={indexes.bm25}", "--index", f"dense={indexes.dense}"]
    flags += ["--encoder", f"dense={indexes.encoder}", "--shards", str(SHARDS)]
    with door(*flags, "--max_in_flight", "64") as running:
        yield running


def test_every_cut_of_a_bm25_index_gives_its_ranks_and_lists(bm25: Bm25Backend) -> None:
    def equal(rows: list[Rows]) -> None:
        shards = [Shard(rows=own, part=bm25.part(own, threads=1)) for own in rows]
        backend = ShardedBackend(bm25, shards)
        for topk in (1, 100, 1000):
            assert backend.ranks(QUERIES, GOLDS, topk) == bm25.ranks(QUERIES, GOLDS, topk)
        for topk in (1, 30):
            assert backend.search(QUERIES, topk) == bm25.search(QUERIES, topk)

    for number in (1, 3, SHARDS):
        equal(cut(bm25, number))
    with pytest.raises(ConfigError, match=r"12500 passages are 4 block.*--shards 4 or fewer"):
        cut(bm25, SHARDS + 1)


def test_every_cut_of_a_dense_index_gives_its_ranks_and_lists(
    dense: DenseBackend, indexes: Indexes
) -> None:
    def part(rows: Rows) -> Part:
        vectors = Vectors(indexes.dense / VECTORS, rows=rows)
        assert next(block.first for block in vectors.blocks(1024)) == rows.first
        return DensePart(RankEngine(vectors, dense.store.id_order_N, threads=1))

    for number in (2, SHARDS):
        rows = cut(dense, number)
        backend = ShardedBackend(dense, [Shard(rows=own, part=part(own)) for own in rows])
        for topk in (1, 100, 1000):
            assert backend.ranks(QUERIES, GOLDS, topk) == dense.ranks(QUERIES, GOLDS, topk)
        for topk in (1, 30):
            assert backend.search(QUERIES, topk) == dense.search(QUERIES, topk)


def test_engines_without_parts_are_refused(indexes: Indexes) -> None:
    with pytest.raises(ConfigError, match="a lucene index cannot be served in shards"):
        open_whole(indexes.bm25, "lucene", IndexSettings(index_path=indexes.bm25))


def test_the_service_answers_as_one_process(
    served: tuple["subprocess.Popen[str]", str], bm25: Bm25Backend, dense: DenseBackend
) -> None:
    _, url = served
    for name, engine in (("bm25", bm25), ("dense", dense)):
        with RetrieverClient(url, index=name) as client:
            assert client.ranks(QUERIES, GOLDS, 100) == engine.ranks(QUERIES, GOLDS, 100)
            assert client.search(QUERIES, 20) == engine.search(QUERIES, 20)
            assert client.passages(GOLDS[2]) == engine.passages(GOLDS[2])
    single = httpx.post(url + "/retrieve", json={"query": "amber"}, timeout=60).json()
    [hits] = bm25.search(["amber"], 3)
    assert [(doc["document"]["id"], doc["score"]) for doc in single["result"][0]] == [
        (hit.doc_id, hit.score) for hit in hits
    ]
    assert "degraded" not in single
    ready = httpx.get(url + "/readyz").json()
    assert ready["fingerprint"] == bm25.info.fingerprint
    assert [card["coverage"] for card in ready["indexes"].values()] == [1.0, 1.0]


def test_a_killed_shard_is_refused_by_clients_and_comes_back(
    served: tuple["subprocess.Popen[str]", str], bm25: Bm25Backend
) -> None:
    process, url = served
    expected = bm25.ranks(QUERIES, GOLDS, 100)
    body = {"queries": QUERIES, "gold_ids": GOLDS}
    found: list[list[int | None]] = []
    enough = threading.Event()

    def ask_on() -> None:
        with RetrieverClient(url) as client:
            while not enough.is_set():
                found.append(client.ranks(QUERIES, GOLDS, 100))

    def raw(**more: object) -> httpx.Response:
        return httpx.post(url + "/retrieve", json={**body, **more}, timeout=60)

    def until_seen(status: int) -> httpx.Response:
        deadline = time.monotonic() + START_S
        while (answer := raw()).status_code != status:
            assert time.monotonic() < deadline
            assert not any(asking.done() for asking in askers)
            if answer.status_code == 200:
                assert [rank if rank > 0 else None for rank in answer.json()["result"]] == expected
        return answer

    def refusal() -> str:
        """What a client that asks once is told; empty where it gets its ranks."""
        try:
            with RetrieverClient(url, attempts=1) as hasty:
                assert hasty.ranks(QUERIES, GOLDS, 100) == expected
        except RetrieverError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(3) as pool:
        askers = [pool.submit(ask_on) for _ in range(3)]
        try:
            until_seen(200)
            for _ in range(LOSSES):
                _shard_process(process, 2).kill()
                refused = until_seen(503).json()
                partial = raw(allow_degraded=True).json()
                with RetrieverClient(url, allow_degraded=True) as generous:
                    lists = generous.search(QUERIES, 5)
                told = refusal()
                until_seen(200)
                if told:  # it was away all the time
                    break
            before = len(found)
            deadline = time.monotonic() + START_S
            while len(found) < before + 6 and not any(asking.done() for asking in askers):
                assert time.monotonic() < deadline
                enough.wait(0.05)
        finally:
            enough.set()
        for asking in askers:
            asking.result()
    assert "of the passages can be searched" in told
    assert refused["degraded"] is True
    assert refused["coverage"] == pytest.approx(1 - 4096 / len(PASSAGES))
    assert partial["degraded"] is True
    assert partial["coverage"] == refused["coverage"]
    for rank, true in zip(partial["result"], expected, strict=True):
        assert rank == -1 if true is None else rank == -1 or rank <= true
    assert len(lists) == len(QUERIES)
    assert len(found) >= before + 6
    assert all(ranks == expected for ranks in found)


def test_all_processes_listen_on_loopback_alone(
    served: tuple["subprocess.Popen[str]", str],
) -> None:
    server = psutil.Process(served[0].pid)
    found = listening([server, *server.children(recursive=True)])
    names = {name for _, name in found}
    assert {"raylet", "gcs_server"} <= names
    assert any(name.startswith("ray::Serve") for name in names)
    assert [each for each in sorted(found) if not is_loopback(each[0])] == []


def test_ctrl_c_leaves_no_process_and_no_file(
    served: tuple["subprocess.Popen[str]", str],
) -> None:
    process, _ = served
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in started)
    process.send_signal(signal.SIGINT)
    assert process.wait(START_S) == 0
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert _folders() == []


def test_a_killed_server_leaves_no_process_and_no_file() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", KILLED_INSTANCE], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.readline() == "up\n"
    started = psutil.Process(server.pid).children(recursive=True)
    server.kill()
    server.wait(10)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    assert _folders() == []


def _shard_process(server: "subprocess.Popen[str]", number: int) -> psutil.Process:
    name = f"-{server.pid}-{number}:shard-{number}"
    for child in psutil.Process(server.pid).children(recursive=True):
        if any(name in part for part in child.cmdline()):
            assert MARKER in child.environ()
            return child
    pytest.fail(f"no process of shard {number}")


def _folders() -> list[Path]:
    return [
        folder
        for folder in Path(tempfile.gettempdir()).glob("shards-*")
        if not any(str(folder) in " ".join(p.cmdline()) for p in psutil.process_iter())
    ]
