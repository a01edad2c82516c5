"""What the server counts, in the text format of Prometheus. Each app has its own registry."""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 600)
"""1 ms to 10 min, the range of Ray Serve's buckets."""
QUERIES = (1, 4, 16, 64, 256, 1024, 2048)


@dataclass(frozen=True)
class QueueMetrics:
    """What one queue reports."""

    waited: Callable[[float], None]
    """Seconds that a request waited for the engine."""
    searched: Callable[[int, int, float], None]
    """Requests, queries and seconds of one engine call."""


class Metrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "retriever_requests", "Answered requests.", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "retriever_request_seconds",
            "Time to answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self._rejected = Counter(
            "retriever_rejected", "Requests that were not searched.", ["reason"], registry=registry
        )
        self.in_flight = Gauge(
            "retriever_in_flight", "Searches being worked on.", registry=registry
        )
        self.body_bytes = Gauge(
            "retriever_body_bytes", "Bodies of requests being worked on.", registry=registry
        )
        self.truncated = Counter(
            "retriever_truncated_queries", "Queries cut for length.", registry=registry
        )
        self.checked = Gauge(
            "retriever_index_checked",
            "Share of the bytes of an index that were compared with their hashes since the start.",
            ["index"],
            registry=registry,
        )
        self.coverage = Gauge(
            "retriever_coverage",
            "Share of the passages that can be searched now.",
            ["index"],
            registry=registry,
        )
        self._waits = Histogram(
            "retriever_queue_wait_seconds",
            "Wait of a request for the engine.",
            ["index"],
            buckets=SECONDS,
            registry=registry,
        )
        self._calls = Histogram(
            "retriever_engine_seconds",
            "One engine call.",
            ["index"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "retriever_batch_queries",
            "Queries of one engine call.",
            ["index"],
            buckets=QUERIES,
            registry=registry,
        )
        self._merged = Counter(
            "retriever_batched_requests",
            "Requests in engine calls.",
            ["index"],
            registry=registry,
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """One request is over. path: one of ours or `other`, so that labels stay few."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request was not searched: `overload`, `stopping`, `deadline`, `gone`, `key`,
        `host`, `damaged`, `degraded`, `body` (too large alone) or `bodies` (too large with the
        others)."""
        self._rejected.labels(reason).inc()

    def queue(self, index: str) -> QueueMetrics:
        """What the queue of this index reports."""
        calls, batches = self._calls.labels(index), self._batches.labels(index)
        merged, waits = self._merged.labels(index), self._waits.labels(index)

        def searched(requests: int, queries: int, seconds: float) -> None:
            merged.inc(requests)
            batches.observe(queries)
            calls.observe(seconds)

        return QueueMetrics(waited=waits.observe, searched=searched)

    def text(self) -> bytes:
        """The page of `/metrics`."""
        return generate_latest(self._registry)
