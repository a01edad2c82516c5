"""What clients leave unfinished, at both services: idle lines, endless heads and bodies, names."""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from live_server import DOOR, started
from small_corpus import random_passages, write_corpus

from convsearch.network.limits import ConnectionLimits, raise_file_limit
from retriever_server.indexing.bm25 import build_bm25_index

FILES = 1024
"""Of the services: many systems allow no more by default."""
IDLE = 2000
LIMITS = ConnectionLimits()
SLACK_S = 20.0
"""On a busy machine."""
HEALTH = {"retriever": "/livez", "rewriter": "/health"}
WORK = {
    "retriever": ("/retrieve", {"queries": ["a"], "topk": 1}),
    "rewriter": ("/rewrite", {"question": "why so?"}),
}


class Service:
    """A running one; `log` is what it wrote to stderr."""

    def __init__(self, kind: str, url: str, pid: int, log: Path) -> None:
        self.kind, self.url, self.pid, self.log = kind, url, pid, log
        self.port = int(url.rsplit(":", 1)[1])
        self.health = HEALTH[kind]
        self.path, self.body = WORK[kind]

    def line(self, sent: bytes = b"") -> socket.socket:
        line = socket.create_connection(("127.0.0.1", self.port), 60)
        line.sendall(sent)
        return line

    def head(self, method: str, path: str, *headers: str) -> bytes:
        return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, ""]).encode()


@pytest.fixture(scope="module", params=["retriever", "rewriter"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("connections")
    log = folder / "log"
    if request.param == "retriever":
        build_bm25_index(write_corpus(folder, random_passages(50)), folder / "index")
        command = [*DOOR, "--index_path", str(folder / "index"), "--deadline_s", "3"]
    else:
        command = [sys.executable, "-c", "from convsearch.cli.main import main; main()"]
        command += ["serve-rewriter", "--engine", "echo", "--deadline-s", "3"]
    shell = f'ulimit -n {FILES}; exec "$0" "$@" 2> >(tee {log} >&2)'
    with started(["bash", "-c", shell, *command, "--port", "0"]) as (process, url):
        yield Service(request.param, url, process.pid, log)


def answer(line: socket.socket) -> tuple[int, str]:
    """Status and body; the connection is closed by the service after it."""
    got = b""
    while piece := line.recv(65536):
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body.decode()


def sentence(body: str) -> str:
    said = json.loads(body)["error"]
    return said if isinstance(said, str) else said["message"]


def closes_within(line: socket.socket, seconds: float) -> float:
    """Seconds until the service closes it."""
    begun = time.monotonic()
    line.settimeout(seconds)
    try:
        while line.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begun


def test_health_is_answered_beside_idle_connections(service: Service) -> None:
    if raise_file_limit() < IDLE + 200:
        pytest.skip("this process may not open so many files")
    before = service.log.stat().st_size
    with ExitStack() as stack, httpx.Client(base_url=service.url, timeout=30) as kept:
        assert kept.get(service.health).status_code == 200
        for _ in range(IDLE):
            stack.enter_context(service.line())
        for _ in range(5):
            begun = time.monotonic()
            assert httpx.get(service.url + service.health, timeout=30).status_code == 200
            assert time.monotonic() - begun < SLACK_S
            assert httpx.post(service.url + service.path, json=service.body).status_code == 200
        assert psutil.Process(service.pid).num_fds() < FILES
    assert service.log.stat().st_size - before < 10_000, "the log does not grow by connections"


def test_an_endless_head_is_refused_at_its_bound(service: Service) -> None:
    resident = psutil.Process(service.pid).memory_info().rss
    with service.line(service.head("GET", service.health) + b"X: ") as line:
        sent = 0
        try:
            while sent < 50_000_000:
                line.sendall(b"a" * 10_000)
                sent += 10_000
        except ConnectionError:
            pass
        assert sent < 20_000_000
    assert psutil.Process(service.pid).memory_info().rss - resident < 50_000_000
    assert httpx.get(service.url + service.health).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        ["X: " + "a" * LIMITS.max_head_bytes],
        [f"X-{i}: a" for i in range(LIMITS.max_headers)],
        ["X" * LIMITS.max_head_bytes + ": a"],
    ],
    ids=["long value", "many", "long name"],
)
def test_a_large_head_is_431_with_a_sentence(service: Service, headers: list[str]) -> None:
    with service.line(service.head("GET", service.health, *headers) + b"\r\n") as line:
        status, body = answer(line)
    assert (status, "larger than 65536 bytes, or more than 100" in sentence(body)) == (431, True)


def test_a_long_path_and_a_long_trailer_are_refused_too(service: Service) -> None:
    with service.line(service.head("GET", "/" + "a" * LIMITS.max_head_bytes) + b"\r\n") as line:
        assert answer(line)[0] == 431
    head = service.head("POST", service.path, "Transfer-Encoding: chunked")
    with service.line(head + b"\r\n1\r\n{\r\n0\r\nX: ") as line:
        line.sendall(b"a" * 4 * LIMITS.max_head_bytes)
        assert closes_within(line, SLACK_S) < LIMITS.head_s


def test_what_is_just_large_enough_passes(service: Service) -> None:
    headers = [f"X-{i}: {'a' * 600}" for i in range(LIMITS.max_headers - 2)]
    with service.line(service.head("GET", service.health, *headers, "Connection: close")) as line:
        for half in (b"\r", b"\n"):
            time.sleep(0.1)
            line.sendall(half)
        assert answer(line)[0] == 200


def test_what_is_no_http_is_400_in_the_form_of_the_service(service: Service) -> None:
    with service.line(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n") as line:
        status, body = answer(line)
    assert (status, "not a request" in sentence(body)) == (400, True)


def test_dawdlers_are_cut_off_and_idle_clients_are_not(service: Service) -> None:
    """All at the same time, because each takes seconds."""
    get = service.head("GET", service.health) + b"\r\n"
    endless = service.head("POST", service.health, "Transfer-Encoding: chunked") + b"\r\n"
    work = service.head("POST", service.path, "Content-Type: application/json")
    with ExitStack() as stack:
        silent = stack.enter_context(service.line())
        slow = stack.enter_context(service.line(b"GET /"))
        blank = stack.enter_context(service.line(get))
        second = stack.enter_context(service.line(get + b"GET / HTTP/1.1\r\nHo"))
        kept = stack.enter_context(service.line(get))
        goes_on = stack.enter_context(service.line(endless))
        chunked = stack.enter_context(
            service.line(work[:-2] + b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        )
        begun = time.monotonic()
        open_still = {"slow": slow, "blank": blank, "goes on": goes_on, "chunked": chunked}
        dribble = {
            "slow": b"a",
            "blank": b"\r\n",
            "goes on": b"1\r\na\r\n",
            "chunked": b"1\r\n \r\n",
        }
        while open_still and time.monotonic() - begun < LIMITS.head_s + SLACK_S:
            for name, line in list(open_still.items()):
                try:
                    line.sendall(dribble[name])
                except ConnectionError:
                    del open_still[name]
            time.sleep(0.3)
        assert not open_still
        with pytest.raises(ConnectionError):
            chunked.sendall(b"1\r\n \r\n")
        assert closes_within(silent, SLACK_S) < SLACK_S
        assert closes_within(second, SLACK_S) < SLACK_S
        time.sleep(max(0.0, begun + LIMITS.head_s + 2 - time.monotonic()))
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        kept.sendall(get)
        assert kept.recv(65536).startswith(b"HTTP/1.1 200"), "idle after an answer is no fault"


def test_a_body_without_end_is_504_and_closed(service: Service) -> None:
    head = service.head(
        "POST", service.path, "Content-Type: application/json", "Transfer-Encoding: chunked"
    )
    with service.line(head + b"\r\n") as line:
        line.settimeout(0.2)
        got, begun = b"", time.monotonic()
        while time.monotonic() - begun < SLACK_S + LIMITS.rest_s:
            try:
                line.sendall(b"1\r\n \r\n")
                got += line.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection is still open")
        assert got.startswith(b"HTTP/1.1 504")


def test_a_foreign_name_is_403(service: Service) -> None:
    for headers in (
        {"Host": "attacker.example"},
        {"Host": f"attacker.example:{service.port}", "Origin": "http://attacker.example"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
    ):
        for path in (service.health, "/openapi.json"):
            assert httpx.get(service.url + path, headers=headers).status_code == 403
        refused = httpx.post(service.url + service.path, json=service.body, headers=headers)
        assert (refused.status_code, "--allowed-host" in sentence(refused.text)) == (403, True)
    for host in ("localhost", f"127.0.0.1:{service.port}", "[::1]:80"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        found = httpx.post(service.url + service.path, json=service.body, headers=headers)
        assert found.status_code == 200


def test_many_requests_on_one_line_are_all_answered(service: Service) -> None:
    wanted = 2_000
    get = service.head("GET", service.health) + b"\r\n"
    last = service.head("GET", service.health, "Connection: close") + b"\r\n"
    with service.line() as line:
        line.settimeout(60)
        line.sendall(get * (wanted - 1) + last)
        got = b""
        while piece := line.recv(1 << 20):
            got += piece
    assert len(re.findall(rb"HTTP/1\.1 200", got)) == wanted
