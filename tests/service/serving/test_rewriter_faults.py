"""The rewriter service as a process under faults: ended in flight, killed, and sent too much."""

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from live_server import started, until

SLOW = """
import socket, sys, time
from convsearch.infer import Generation, SamplingParams
from convsearch.listening import listen
from convsearch.serving.server import serve
from convsearch.serving.settings import ServingSettings

class Slow:
    identity = {"engine": "slow"}
    def generate(self, chats, params, seeds):
        print("generating", flush=True)
        time.sleep(2)
        return [Generation(text="<think>t</think>\\n<rewrite>q</rewrite>") for _ in chats]
    def close(self):
        pass

settings = ServingSettings(
    model="m", style="instruct", defaults=SamplingParams(max_tokens=8),
    max_in_flight=int(sys.argv[2]), max_batch=4,
)
serve(Slow(), settings, listen("127.0.0.1", int(sys.argv[1])), lambda url: print(
    f"ready: {url}", file=sys.stderr, flush=True))
"""
ECHO = [
    sys.executable, "-c", "from convsearch.cli.main import main; main()", "serve-rewriter",
    "--engine", "echo",
]  # fmt: skip
ASKED = {"question": "why so?"}


def slow(port: int = 0, max_in_flight: int = 256) -> list[str]:
    return [sys.executable, "-c", SLOW, str(port), str(max_in_flight)]


def test_sigterm_answers_what_is_in_flight_and_takes_no_more() -> None:
    with started(slow()) as (process, url), ThreadPoolExecutor(3) as pool:
        with httpx.Client(base_url=url, timeout=60) as idle:
            assert idle.get("/health").status_code == 200
            asks = [pool.submit(httpx.post, url + "/rewrite", json=ASKED, timeout=60)
                    for _ in range(3)]  # fmt: skip
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            for one in asks:
                assert (one.result().status_code, one.result().json()["query"]) == (200, "q")
            assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")


def test_a_killed_service_is_an_error_to_its_clients_and_back_on_its_port() -> None:
    with started(slow()) as (process, url), ThreadPoolExecutor(1) as pool:
        port = int(url.rsplit(":", 1)[1])
        waiting = pool.submit(httpx.post, url + "/rewrite", json=ASKED, timeout=60)
        time.sleep(0.5)
        process.kill()
        with pytest.raises(httpx.TransportError):
            waiting.result()
    with started(slow(port)) as (_, again):
        assert again == url
        assert httpx.post(url + "/rewrite", json=ASKED, timeout=60).json()["query"] == "q"


def test_no_worker_outlives_a_killed_service() -> None:
    with started([*ECHO, "--workers", "2", "--port", "0"]) as (process, url):
        assert httpx.post(url + "/rewrite", json=ASKED).status_code == 200
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[psutil.Process, str]]:
    with started([*ECHO, "--port", "0"]) as (process, url):
        yield psutil.Process(process.pid), url


def test_large_bodies_are_413_and_take_no_memory(echo: tuple[psutil.Process, str]) -> None:
    process, url = echo
    assert httpx.post(url + "/rewrite", json=ASKED).status_code == 200
    before = process.memory_info().rss
    large = json.dumps({"question": "a" * 20_000_000}).encode()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(large), 50_000):
            yield large[at : at + 50_000]

    for content in (large, pieces()):
        try:
            answer = httpx.post(url + "/rewrite", content=content, timeout=60)
        except httpx.WriteError:  # the connection was closed before all was sent
            continue
        assert answer.status_code == 413
        assert "larger than" in answer.json()["error"]["message"]
    with ThreadPoolExecutor(16) as pool:

        def ask(_: int) -> int:
            line = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 60)
            with line:
                line.sendall(
                    b"POST /rewrite HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n"
                )
                return int(line.recv(100).split()[1])

        assert set(pool.map(ask, range(16))) == {413}
    assert process.memory_info().rss - before < 60_000_000
    assert httpx.get(url + "/health").status_code == 200


def test_clients_that_hang_up_leave_room_for_others(echo: tuple[psutil.Process, str]) -> None:
    _, url = echo
    port = int(url.rsplit(":", 1)[1])
    stop = threading.Event()

    def hang_up() -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", port), 60) as line:
                line.sendall(
                    b"POST /rewrite HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
                )
            time.sleep(0.002)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(hang_up)
        for _ in range(20):
            assert httpx.post(url + "/rewrite", json=ASKED, timeout=30).status_code == 200
        stop.set()
    until(lambda: httpx.post(url + "/rewrite", json=ASKED).status_code == 200, "an answer")


def test_clients_that_go_away_while_they_are_answered_leave_their_room() -> None:
    body = json.dumps(ASKED).encode()
    head = f"POST /rewrite HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with started(slow(max_in_flight=4)) as (process, url):
        port = int(url.rsplit(":", 1)[1])
        for _ in range(3):
            for _ in range(4):
                with socket.create_connection(("127.0.0.1", port), 60) as line:
                    line.sendall(head.encode() + body)
                    time.sleep(0.05)
            until(
                lambda: httpx.post(url + "/rewrite", json=ASKED, timeout=60).status_code == 200,
                "room for one that waits",
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_more_than_fit_are_503_at_once_and_the_rest_is_answered() -> None:
    with started(slow(max_in_flight=4)) as (_, url), ThreadPoolExecutor(24) as pool:
        asks = [
            pool.submit(httpx.post, url + "/rewrite", json=ASKED, timeout=60) for _ in range(24)
        ]
        until(lambda: any(one.done() for one in asks), "the first refusal")
        assert httpx.get(url + "/health").status_code == 200
        answers = [one.result() for one in asks]
        kinds = {answer.status_code for answer in answers}
        assert kinds == {200, 503}
        assert all(
            answer.json()["query"] == "q"
            if answer.status_code == 200
            else answer.headers["retry-after"] == "1"
            for answer in answers
        )
        assert sum(answer.status_code == 200 for answer in answers) >= 4
        assert httpx.post(url + "/rewrite", json=ASKED, timeout=60).status_code == 200


def test_nonsense_is_never_a_500(echo: tuple[psutil.Process, str]) -> None:
    _, url = echo
    bodies = [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"question": NaN}',
        b'{"question": "\\u0000"}', b'{"question": 1e999}',
        b'{"question": "a", "seed": 1e400}', b'{"question": "a", "history": [[]]}',
        b'{"question": {"a": "b"}}', json.dumps({"question": "a" * 500_000}).encode(),
    ]  # fmt: skip
    for path in ("/rewrite", "/v1/chat/completions"):
        for body in bodies:
            for kind in ("application/json", "text/plain"):
                answer = httpx.post(
                    url + path, content=body, headers={"Content-Type": kind}, timeout=60
                )
                assert answer.status_code < 500, (path, body[:40], answer.text)
                assert answer.json()
