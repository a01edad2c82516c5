"""Which thread searches which index, and what an index is asked before it counts as ready."""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_corpus import random_passages, write_corpus

from convsearch.errors import EngineError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.hybrid import HybridBackend
from retriever_server.batching import device_of
from retriever_server.cores import SEARCHING_NICENESS
from retriever_server.corpora import Corpora, Corpus
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.metrics import Metrics

PASSAGES = random_passages(30)


class OnGpu(InMemoryRetriever):
    """Says that it runs on an accelerator; notes the thread that calls it."""

    device = "cuda"

    def __init__(self) -> None:
        super().__init__(PASSAGES)
        self.threads: set[str] = set()

    def search(self, queries, topk):
        self.threads.add(threading.current_thread().name)
        return super().search(queries, topk)


class Pooled(InMemoryRetriever):
    """Searches with a thread of its own, as engines do; notes the niceness of both."""

    def __init__(self, device: str) -> None:
        super().__init__(PASSAGES)
        self.device = device
        self.niceness: list[int] = []

    def search(self, queries, topk):
        with ThreadPoolExecutor(1) as pool:
            self.niceness = [niceness(), pool.submit(niceness).result()]
        return super().search(queries, topk)


def niceness() -> int:
    """Of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Noting(Bm25Backend):
    """Notes the gold ids it was asked for; `wrong` ranks everything first."""

    wrong = False

    def ranks(self, queries, golds, topk):
        self.golds = [*golds]
        return [1] if self.wrong else super().ranks(queries, golds, topk)


def opened(**corpora: Corpus) -> None:
    """Opens them as the server does; raises what the first queries raise."""

    async def first_queries() -> None:
        served = Corpora(corpora, max_batch_queries=64, metrics=Metrics())
        try:
            await served.open()
        finally:
            served.close()

    asyncio.run(first_queries())


def test_engines_on_accelerators_share_a_thread_and_others_do_not() -> None:
    one, other, plain = OnGpu(), OnGpu(), InMemoryRetriever(PASSAGES)
    hybrid = HybridBackend(plain, other)
    assert [device_of(engine) for engine in (one, hybrid, plain)] == ["cuda", "cuda", "cpu"]
    opened(a=Corpus(one), b=Corpus(hybrid), c=Corpus(plain))
    assert len(one.threads) == 1
    assert one.threads == other.threads


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority on Linux alone")
def test_searching_threads_of_the_cpu_let_the_event_loop_go_first() -> None:
    before = niceness()
    cpu, gpu = Pooled("cpu"), Pooled("cuda")
    opened(a=Corpus(cpu), b=Corpus(gpu))
    assert cpu.niceness == [max(before, SEARCHING_NICENESS)] * 2
    assert gpu.niceness == [before] * 2
    assert niceness() == before


@pytest.fixture(scope="module")
def foreign_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No word of the server's first query occurs in it."""
    folder = tmp_path_factory.mktemp("foreign")
    passages = [Passage(doc_id=f"d{i}", title="", text="слово и дело") for i in range(3)]
    build_bm25_index(write_corpus(folder, passages), folder / "index")
    return folder / "index"


def test_ranks_are_tried_also_where_the_first_query_matches_nothing(foreign_index: Path) -> None:
    engine = Noting.load(foreign_index)
    assert isinstance(engine, Noting)
    opened(a=Corpus(engine))
    assert engine.golds == [["d0"]]
    engine.wrong = True
    with pytest.raises(EngineError, match="'d0' is in no list and has rank 1"):
        opened(a=Corpus(engine))
