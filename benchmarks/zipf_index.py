"""Passages, queries and an index of random words, for the benchmarks of the server."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convsearch.passages import write_passages
from convsearch.retrieval.protocol import Retriever
from convsearch.types import Passage
from retriever_server.indexing.bm25 import build_bm25_index

WORDS = 30_000
PASSAGE_WORDS = 100
QUERY_WORDS = 30
TOPK = 100


def zipf_texts(count: int, words: int, seed: int) -> list[str]:
    """Texts whose words occur as often as in language: the n-th most frequent 1/n as often."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, WORDS + 1)
    drawn = rng.choice(WORDS, size=(count, words), p=weights / weights.sum())
    return [" ".join(f"w{word}" for word in row) for row in drawn]


def golds_for(engine: Retriever, queries: Sequence[str]) -> list[list[str]]:
    """A passage for each query: the best ones of the first query in turns."""
    [first] = engine.search(queries[:1], TOPK)
    return [[first[i % len(first)].doc_id] for i in range(len(queries))]


def make_index(folder: Path, num_passages: int) -> Path:
    """A BM25 index of random passages in this folder."""
    texts = zipf_texts(num_passages, PASSAGE_WORDS, seed=1)
    passages = [Passage(doc_id=f"p{i}", title="", text=text) for i, text in enumerate(texts)]
    write_passages(folder / "corpus.jsonl", passages)
    build_bm25_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"
