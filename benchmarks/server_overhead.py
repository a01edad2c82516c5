"""What the service adds to its engine, and how it behaves while it is saturated.

    python3 benchmarks/server_overhead.py [--index_path INDEX]

Writes benchmarks/results/server_overhead.json and .md. Without an index one is made from random
passages with word frequencies as in text (Zipf). Engine and server are asked in turn and medians
compared, so that a noisy machine bothers both alike.
"""

import argparse
import http.client
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from saturation import crowds, saturated
from zipf_index import QUERY_WORDS, TOPK, golds_for, make_index, zipf_texts

from convsearch.files import atomic_write
from convsearch.retrieval.protocol import Retriever
from retriever_server.loading import load_backend
from retriever_server.process import ServerProcess
from retriever_server.settings import IndexSettings

RESULTS = Path(__file__).with_name("results") / "server_overhead"


def post(line: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    """One search over a kept connection: status and answer."""
    line.request("POST", "/retrieve", body, {"Content-Type": "application/json"})
    answer = line.getresponse()
    return answer.status, answer.read()


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def engine_seconds(line: http.client.HTTPConnection) -> float:
    """What the server has spent in its engine so far, by its own metrics."""
    line.request("GET", "/metrics")
    page = line.getresponse().read().decode()
    return next(
        float(entry.split()[-1])
        for entry in page.splitlines()
        if entry.startswith("retriever_engine_seconds_sum")
    )


def overhead(engine: Retriever, url: str, num_queries: int, repeats: int) -> dict[str, float]:
    """Medians of the engine alone and of the whole way through the server, asked in turn; and
    what is left of each request where the server's own time in the engine is taken off."""
    queries = zipf_texts(num_queries, QUERY_WORDS, seed=2)
    golds = golds_for(engine, queries)
    ask = {"queries": queries, "gold_ids": golds, "topk": TOPK}
    line = connect(url)
    answers: list[bytes] = []

    def through_the_server() -> None:
        status, answer = post(line, json.dumps(ask).encode())
        if status != 200:
            raise SystemExit(f"the server answered {status}: {answer[:200]!r}")
        answers.append(json.loads(answer)["result"])

    expected = [rank or -1 for rank in engine.ranks(queries, golds, TOPK)]
    through_the_server()
    if answers[0] != expected:
        raise SystemExit("the server's ranks differ from the engine's")
    alone, served, around = [], [], []
    for _ in range(repeats):
        alone.append(seconds_of(lambda: engine.ranks(queries, golds, TOPK)))
        before = engine_seconds(line)
        served.append(seconds_of(through_the_server))
        around.append(served[-1] - (engine_seconds(line) - before))
    engine_s, server_s = statistics.median(alone), statistics.median(served)
    return {
        "queries": num_queries,
        "repeats": repeats,
        "engine_s": engine_s,
        "server_s": server_s,
        "overhead_percent": 100 * (server_s / engine_s - 1),
        "around_engine_ms": 1000 * statistics.median(around),
        "around_engine_percent": 100 * statistics.median(around) / engine_s,
    }


def milliseconds(load: Mapping[str, float], what: str) -> str:
    """Median, 99th percentile and maximum."""
    found = (load[f"{what}_{which}_ms"] for which in ("p50", "p99", "max"))
    return ", ".join(f"{value:.0f}" for value in found) + " ms"


def table(found: dict[str, dict[str, float]], machine: str) -> str:
    """The figures as Markdown."""
    cost = found["overhead"]
    rows = [
        (f"engine alone, {cost['queries']} queries", f"{1000 * cost['engine_s']:.0f} ms"),
        (f"through the server, {cost['queries']} queries", f"{1000 * cost['server_s']:.0f} ms"),
        ("difference", f"{cost['overhead_percent']:.1f} %"),
        ("of the same request, time outside of the engine",
         f"{cost['around_engine_ms']:.1f} ms, {cost['around_engine_percent']:.1f} %"),
    ]  # fmt: skip
    for name, what in (("large", "16 queries, 100 documents"), ("small", "one query")):
        load = found[name]
        rows += [
            (f"**{load['clients']} clients at work, {load['max_in_flight']} admitted, {what}**",
             f"they use {load['clients_percent_of_a_core']:.0f} % of a core"),
            ("health checks of an idle server: 99th percentile",
             f"{load['idle_health_p99_ms']:.1f} ms"),
            ("health checks: median, 99th percentile, longest",
             milliseconds(load, "health")),
            ("time to a refusal: median, 99th percentile, longest",
             milliseconds(load, "refusal")),
            ("searches answered, refused, other",
             f"{load['searches_answered']}, {load['searches_refused']}, {load['other_answers']}"),
        ]  # fmt: skip
    lines = ["| measured | value |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]
    return "\n".join([*lines, "", f"{machine}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index_path", type=Path, help="absent: made from random passages")
    parser.add_argument("--passages", type=int, default=20_000, help="of the random corpus")
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=15, help="of saturation")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ServerProcess() as server:
        folder = Path(name)
        index = options.index_path
        if index is None:
            index = make_index(folder, options.passages)
        engine, _ = load_backend(IndexSettings(index_path=index))
        log = folder / "server.log"
        url = server.start(index, None, log)
        found = {"overhead": overhead(engine, url, options.queries, options.repeats)}
        for name, crowd in crowds(engine).items():
            server.stop()
            flags = ["--max_in_flight", str(crowd.max_in_flight)]
            url = server.start(index, None, log, flags=flags)
            found[name] = saturated(url, crowd, options.seconds)
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{'random corpus of ' + str(options.passages) if not options.index_path else 'an index'} "
        f"passages, {time.strftime('%Y-%m-%d')}, load average {os.getloadavg()[0]:.1f}"
    )
    RESULTS.parent.mkdir(exist_ok=True)
    with atomic_write(RESULTS.with_suffix(".json")) as out:
        json.dump({"machine": machine, **found}, out, indent=2)
        out.write("\n")
    with atomic_write(RESULTS.with_suffix(".md")) as out:
        out.write(table(found, machine))
    print(table(found, machine))


if __name__ == "__main__":
    main()
