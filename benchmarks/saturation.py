"""How a saturated server answers health checks and refuses: clients that cost little themselves.

The clients share the machine with the server they measure, so they are plain sockets: requests are
bytes made beforehand, one process waits for all searching connections together, and of an answer
only status and length are read. What they use of the processors is reported beside the figures.

    python3 benchmarks/saturation.py [--against CHECKOUT] [--rounds 3] [--seconds 10]

Writes benchmarks/results/saturation.json and .md. CHECKOUT: of another commit, whose server is
measured in turn with this one. Refusals of the first moment, in which all clients ask at once, are
among the others.
"""

import argparse
import contextlib
import heapq
import json
import multiprocessing
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from tables import Row, write_results
from zipf_index import QUERY_WORDS, TOPK, golds_for, make_index, zipf_texts

from convsearch.retrieval.protocol import Retriever
from retriever_server.loading import load_backend
from retriever_server.settings import DEFAULT_MAX_IN_FLIGHT, IndexSettings

_RETRY_S = 1.0, 2.0
"""Shortest and longest wait of a refused client: what Retry-After asks for and up to as much again,
at random, since clients that come back together are refused together."""
_HEALTH_EVERY_S = 0.005
_SETTLING_S = 2.0
"""Until the crowd no longer asks in step."""
_TIMEOUT_S = 120.0
_PASSAGES = 20_000
_ROOT = Path(__file__).resolve().parents[1]
_BUFFER_BYTES = 1 << 18
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Clients that ask without a break."""

    clients: int
    max_in_flight: int
    """Limit of the server they are sent to; fewer than there are clients."""
    bodies: list[bytes]
    """What they post to `/retrieve`, in turns."""


@dataclass(kw_only=True)
class Report:
    """What the crowd saw; seconds from the first byte sent to the last one received."""

    statuses: dict[int, int] = field(default_factory=dict)
    refused_s: list[float] = field(default_factory=list)
    cores: float = 0.0
    """Share of a core that the process of all clients used."""


class Line:
    """A kept connection that sends the same request again and again, and of the answers reads
    status and length, in whatever pieces they come."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address, _TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._head = b""
        self._left = 0
        self.since = 0.0
        self.status = 0

    def send(self) -> None:
        """Starts a search. Requests are smaller than a socket's buffer, so none blocks."""
        self._head, self._left = b"", -1
        self.since = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self, buffer: bytearray) -> bool:
        """Takes what is there; True where the answer is complete."""
        size = self.socket.recv_into(buffer)
        if size == 0:
            raise SystemExit("the server closed a connection that it should have kept")
        if self._left >= 0:
            self._left -= size
            return self._left == 0
        self._head += buffer[:size]
        end = self._head.find(_END_OF_HEAD)
        if end < 0:
            return False
        self.status, length = _status_and_length(self._head[:end])
        self._left = length - (len(self._head) - end - len(_END_OF_HEAD))
        return self._left == 0


def saturated(url: str, crowd: Crowd, seconds: float) -> dict[str, float]:
    """Times of health checks and refusals while the crowd asks, and of health checks before."""
    idle, _ = health_s(url, seconds / 3)
    with _asking(url, crowd) as line:
        line.recv()  # all have asked
        time.sleep(_SETTLING_S)
        health, cores = health_s(url, seconds)
        line.send(None)
        report: Report = line.recv()
    refused = report.refused_s
    answered = report.statuses.get(200, 0)
    return {
        "clients": crowd.clients,
        "max_in_flight": crowd.max_in_flight,
        "health_checks": len(health),
        "idle_health_p99_ms": _ms(idle, 99),
        "health_p50_ms": _ms(health, 50),
        "health_p99_ms": _ms(health, 99),
        "health_max_ms": _ms(health, 100),
        "searches_answered": answered,
        "searches_refused": len(refused),
        "other_answers": sum(report.statuses.values()) - answered - len(refused),
        "refusal_p50_ms": _ms(refused, 50),
        "refusal_p99_ms": _ms(refused, 99),
        "refusal_max_ms": _ms(refused, 100),
        "clients_percent_of_a_core": 100 * (report.cores + cores),
    }


def health_s(url: str, seconds: float) -> tuple[list[float], float]:
    """Seconds of `/livez` and `/readyz`, in turns, and the share of a core that asking used."""
    times: list[float] = []
    used, start = time.process_time(), time.perf_counter()
    with contextlib.ExitStack() as stack:
        lines = []
        for path in ("/livez", "/readyz"):
            lines.append(
                Line(address_of(url), f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            )
            stack.enter_context(lines[-1].socket)
        buffer = bytearray(_BUFFER_BYTES)
        while time.perf_counter() < start + seconds:
            for line in lines:
                line.send()
                while not line.receive(buffer):
                    pass
                times.append(time.perf_counter() - line.since)
                if line.status != 200:
                    raise SystemExit(f"a health check was answered {line.status}")
            time.sleep(_HEALTH_EVERY_S)
    return times, (time.process_time() - used) / (time.perf_counter() - start)


@contextlib.contextmanager
def _asking(url: str, crowd: Crowd) -> Iterator[Connection]:
    """The crowd at work in a process of its own. The line says when all have asked; whatever is
    sent into it ends the crowd, which then sends its report."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_ask, args=(url, crowd, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _ask(url: str, crowd: Crowd, parent: Connection) -> None:
    report = Report()
    rng = random.Random(1)
    buffer = bytearray(_BUFFER_BYTES)
    waiting: list[tuple[float, int]] = []  # refused: when to ask again, and whose turn it is
    with selectors.DefaultSelector() as selector:
        selector.register(parent, selectors.EVENT_READ)
        lines = []
        for number in range(crowd.clients):
            line = Line(address_of(url), request_of(crowd.bodies[number % len(crowd.bodies)]))
            selector.register(line.socket, selectors.EVENT_READ, number)
            lines.append(line)
        used, start = time.process_time(), time.perf_counter()
        for line in lines:
            line.send()
        parent.send(None)
        while True:
            timeout = max(0.0, waiting[0][0] - time.perf_counter()) if waiting else None
            for key, _ in selector.select(timeout):
                if key.fileobj is parent:
                    elapsed_s = time.perf_counter() - start
                    report.cores = (time.process_time() - used) / elapsed_s
                    parent.send(report)
                    return
                line = lines[key.data]
                if not line.receive(buffer):
                    continue
                now = time.perf_counter()
                report.statuses[line.status] = report.statuses.get(line.status, 0) + 1
                if line.status == 503:
                    report.refused_s.append(now - line.since)
                    heapq.heappush(waiting, (now + rng.uniform(*_RETRY_S), key.data))
                else:
                    line.send()
            while waiting and waiting[0][0] <= time.perf_counter():
                lines[heapq.heappop(waiting)[1]].send()


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def request_of(body: bytes) -> bytes:
    head = (
        "POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _status_and_length(head: bytes) -> tuple[int, int]:
    first, *fields = head.lower().split(b"\r\n")
    length = next(line for line in fields if line.startswith(b"content-length:"))
    return int(first.split()[1]), int(length.split(b":")[1])


def _ms(seconds: list[float], percent: float) -> float:
    return 1000 * float(np.percentile(seconds, percent)) if seconds else float("nan")


def crowds(engine: Retriever) -> dict[str, Crowd]:
    """A few clients with large requests, and more clients with small ones than are admitted."""
    texts = zipf_texts(64, QUERY_WORDS, seed=3)
    golds = golds_for(engine, texts)
    large = [
        {"queries": texts[first : first + 16], "topk": TOPK, "with_contents": False}
        for first in range(0, len(texts), 16)
    ]
    ranks = [
        {"queries": [text], "gold_ids": [gold], "topk": TOPK}
        for text, gold in zip(texts, golds, strict=True)
    ]
    documents = [{"queries": [text], "topk": 10} for text in texts]
    small = [ask for pair in zip(ranks, documents, strict=True) for ask in pair]
    return {
        "large": Crowd(clients=32, max_in_flight=16, bodies=_bodies(large)),
        "small": Crowd(clients=640, max_in_flight=DEFAULT_MAX_IN_FLIGHT, bodies=_bodies(small)),
    }


def _bodies(asks: Sequence[Mapping[str, object]]) -> list[bytes]:
    return [json.dumps(ask).encode() for ask in asks]


@contextlib.contextmanager
def _served(checkout: Path, index: Path, max_in_flight: int, log: Path) -> Iterator[str]:
    """The URL of the server of a checkout, once it is ready."""
    command = [sys.executable, str(checkout / "retriever_server" / "server.py"), "--port", "0"]
    command += ["--index_path", str(index), "--max_in_flight", str(max_in_flight)]
    command += ["--log_file", str(log)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = next((line for line in server.stderr if line.startswith("ready: ")), None)
            if said is None:
                raise SystemExit(f"{checkout}: the server ended before it was ready")
            yield said.split()[1]
        finally:
            server.terminate()


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _rows(found: Sequence[tuple[str, str, dict[str, float]]]) -> list[Row]:
    """Medians over the rounds, for each crowd and server."""
    kinds = list(dict.fromkeys((crowd, server) for crowd, server, _ in found))
    rows: list[Row] = []
    for kind in kinds:
        loads = [load for crowd, server, load in found if (crowd, server) == kind]
        medians = {name: statistics.median(load[name] for load in loads) for name in loads[0]}
        rows.append({"crowd": kind[0], "server": kind[1], "rounds": len(loads), **medians})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Health checks and refusals of a busy server.")
    parser.add_argument("--against", type=Path, help="checkout of another commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    options = parser.parse_args()
    servers = {"this commit": _ROOT}
    if options.against is not None:
        servers[_commit(options.against)] = options.against
    found: list[tuple[str, str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        index = make_index(Path(name), _PASSAGES)
        engine, _ = load_backend(IndexSettings(index_path=index))
        for _ in range(options.rounds):
            for which, crowd in crowds(engine).items():
                for server, checkout in servers.items():
                    log = Path(name) / "server.log"
                    with _served(checkout, index, crowd.max_in_flight, log) as url:
                        load = saturated(url, crowd, options.seconds)
                    found.append((which, server, {**load, "machine_load": os.getloadavg()[0]}))
                    print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    command = f"python3 benchmarks/saturation.py --rounds {options.rounds}"
    command += f" --seconds {options.seconds:g}" + " --against CHECKOUT" * (len(servers) > 1)
    write_results("saturation", command, {"medians": _rows(found)})


if __name__ == "__main__":
    main()
