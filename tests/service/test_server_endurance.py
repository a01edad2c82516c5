"""A server process under signals, load and loss."""

import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from live_server import START_S, door, started, until
from saturation import request_of
from small_corpus import random_passages, random_queries, write_corpus

from convsearch.retrieval.client import RetrieverClient
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.indexing.bm25 import build_bm25_index

PASSAGES = random_passages(100)
SLOW_SERVER = """
import sys, time
from pathlib import Path
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage
from retriever_server import server

class Slow(InMemoryRetriever):
    def search(self, queries, topk):
        while queries[0].startswith("slow") and not Path(sys.argv[1]).exists():
            time.sleep(0.01)
        return super().search(queries, topk)

server.load_backend = lambda _: (Slow([Passage(doc_id="d", title="", text="slow word")]), None)
server.SHUTDOWN_S = float(sys.argv[2])
server.main(["--index_path", "none", "--port", "0"])
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endurance")
    build_bm25_index(write_corpus(folder, PASSAGES), folder / "index")
    return folder / "index"


def slow_server(go_on: Path, shutdown_s: float) -> list[str]:
    """Its searches for `slow` wait until the file is there."""
    return [sys.executable, "-c", SLOW_SERVER, str(go_on), str(shutdown_s)]


def wait_for_metric(url: str, line: str) -> None:
    until(lambda: line in httpx.get(url + "/metrics").text, line)


def refuses(url: str) -> bool:
    """Whether it says that it is not ready, or nothing more."""
    try:
        return httpx.get(url + "/readyz", timeout=1).status_code == 503
    except httpx.TransportError:
        return True


def test_sigterm_lets_work_finish_and_leaves_nothing(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    with started(slow_server(go_on, 20)) as (process, url), ThreadPoolExecutor(1) as pool:
        children = psutil.Process(process.pid).children(recursive=True)
        late = pool.submit(httpx.post, url + "/retrieve", json={"query": "slow"}, timeout=60)
        wait_for_metric(url, "retriever_in_flight 1.0")
        process.terminate()
        sent = time.monotonic()
        until(lambda: refuses(url), "its refusal")
        assert time.monotonic() - sent < 2, "1 s on an idle machine"
        assert not late.done()
        with contextlib.suppress(httpx.TransportError):  # the listening socket is closed
            assert httpx.post(url + "/retrieve", json={"query": "a"}).status_code == 503
        go_on.touch()
        assert late.result().status_code == 200
        assert late.result().json()["result"][0][0]["document"]["id"] == "d"
        assert process.wait(START_S) == 0
    assert not [child for child in children if child.is_running()]


def test_a_search_without_end_does_not_hold_the_server(tmp_path: Path) -> None:
    with (
        started(slow_server(tmp_path / "never", 1)) as (process, url),
        ThreadPoolExecutor(1) as pool,
    ):
        late = pool.submit(httpx.post, url + "/retrieve", json={"query": "slow"}, timeout=60)
        wait_for_metric(url, "retriever_in_flight 1.0")
        process.terminate()
        start = time.monotonic()
        assert process.wait(START_S) == 0
        assert time.monotonic() - start < 15
        with contextlib.suppress(httpx.TransportError):
            assert late.result().status_code >= 500


def test_killed_and_restarted_it_gives_the_same_ranks(index: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queries = random_queries(400)
    golds = [[random.Random(i).choice(PASSAGES).doc_id] for i in range(400)]
    expected = Bm25Backend.load(index).ranks(queries, golds, 100)
    found: list[list[int | None]] = []

    enough = threading.Event()

    def ask(client: RetrieverClient) -> None:
        while not enough.is_set():
            found.append(client.ranks(queries, golds, 100))

    with RetrieverClient(f"http://127.0.0.1:{port}") as client, ThreadPoolExecutor(1) as pool:
        with door("--index_path", str(index), port=port) as (process, _):
            asking = pool.submit(ask, client)
            until(lambda: bool(found) or asking.done(), "the first ranks")
            assert found
            process.kill()
            process.wait(10)
        before = len(found)
        with door("--index_path", str(index), port=port):
            until(lambda: len(found) >= before + 2 or asking.done(), "the same ranks again")
            enough.set()
            asking.result()
    assert len(found) >= before + 2
    assert all(ranks == expected for ranks in found)


def read_answer(line: socket.socket) -> bytes:
    """The body of a 200 on a kept connection. Bare, because here the clients took more of the
    processors than the server."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += line.recv(2**16)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    [length] = re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)
    while len(body) < int(length):
        body += line.recv(2**16)
    return body


def test_64_threads_equal_serial_and_memory_stays(index: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    asks = [
        (random_queries(3, seed=i), [[rng.choice(PASSAGES).doc_id] for _ in range(3)])
        for i in range(200)
    ]
    bodies = [
        json.dumps({"queries": queries, "gold_ids": golds, "topk": 100}).encode()
        for queries, golds in asks
    ]

    def all_asks(seed: int) -> dict[int, bytes]:
        answers = {}
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), 120) as line:
            for i in random.Random(seed).sample(range(200), 200):
                line.sendall(request_of(bodies[i]))
                answers[i] = read_answer(line)
        return answers

    log = tmp_path / "log.jsonl"
    with door("--index_path", str(index), "--log_file", str(log)) as (process, url):
        server = psutil.Process(process.pid)
        serial = all_asks(0)
        with ThreadPoolExecutor(64) as pool:
            assert all(answers == serial for answers in pool.map(all_asks, range(1, 5)))
            rss_after_1000 = server.memory_info().rss
            assert all(answers == serial for answers in pool.map(all_asks, range(5, 69)))
        rss_at_the_end = server.memory_info().rss
        wait_for_metric(url, 'requests_total{path="/retrieve",status="200"} 13800.0')
        process.terminate()
        assert process.wait(START_S) == 0
    engine = Bm25Backend.load(index)
    for i, (queries, golds) in enumerate(asks):
        ranks = [rank or -1 for rank in engine.ranks(queries, golds, 100)]
        assert json.loads(serial[i])["result"] == ranks
    lines = log.read_text().splitlines()
    assert len({json.loads(line)["request_id"] for line in lines}) == len(lines) == 13800
    assert rss_at_the_end <= 1.05 * rss_after_1000


def test_a_pipe_that_nobody_reads_stops_nothing(index: Path) -> None:
    with door("--index_path", str(index)) as (process, url):
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), 30) as line:
            for _ in range(500):  # lines of 280 bytes into a pipe of 64 KiB
                line.sendall(request_of(b'{"query": "amber"}'))
                assert read_answer(line)
        process.terminate()
        try:
            assert process.wait(30) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("it waits for its log")
