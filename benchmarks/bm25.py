"""Ranks by BM25: our engine, Lucene, and Pyserini's `batch_search`, in turns on the same queries.

    python3 benchmarks/bm25.py            # 200,000 and 1,000,000 passages
    python3 benchmarks/bm25.py --quick    # 50,000 passages, under five minutes

Passages are synthetic (Zipf's law, bursts, about 75 words). Corpora and indexes stay in
`runs/bench`. Pyserini is measured without its Python package: `SimpleSearcher.batch_search` of
Anserini through pyjnius, with each hit read as the package and ConvSearch-R1 do.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from synthetic_corpus import SyntheticCorpus
from tables import Row, interleaved, markdown, median_ratio, processor, write_results

from convsearch.passages import write_passages
from convsearch.retrieval import Retriever
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.lucene import LuceneBackend
from retriever_server.indexing.lucene import build_lucene_index
from retriever_server.lucene.jvm import jvm

TOPK = 100
WORDS = (8, 20, 60, 200)
GOLD_SHARE = 0.3
"""Share of a query's words that come from its gold passage; the rest from two other passages."""
FOLDER = Path("runs/bench")


class Pyserini:
    """`LuceneSearcher.batch_search`, hits keyed by query id as there; ids are unique here."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._java = jvm()
        self._threads = threads

        def start(class_named):
            searcher = class_named("io.anserini.search.SimpleSearcher")(str(folder))
            searcher.set_bm25(0.9, 0.4)
            return searcher, class_named("java.util.ArrayList"), class_named("java.lang.String")

        self._searcher, self._list, self._string = self._java.call(start)

    def ranks(self, queries: list[str], golds: list[list[str]], topk: int) -> list[int | None]:
        """Lists of hits, then the place of a gold passage in each."""

        def search(_):
            texts, qids = self._list(), self._list()
            for number, query in enumerate(queries):
                texts.add(self._string(query.encode()))
                qids.add(self._string(str(number).encode()))
            found = self._searcher.batch_search(texts, qids, topk, self._threads)
            entries = found.entrySet().toArray()
            lists = {entry.getKey(): entry.getValue() for entry in entries}
            return [[hit.docid for hit in lists[str(i)]] for i in range(len(queries))]

        return [
            next((rank for rank, doc_id in enumerate(hits, 1) if doc_id in gold), None)
            for hits, gold in zip(self._java.call(search), golds, strict=True)
        ]


def make_indexes(num_passages: int) -> tuple[SyntheticCorpus, Path, Path, list[Row]]:
    """The corpus and its two indexes, from `runs/bench` where they are there."""
    corpus = SyntheticCorpus(num_passages, vocabulary=300_000)
    path = FOLDER / f"{num_passages}" / "corpus.jsonl"
    ours, lucene = path.with_name("bm25"), path.with_name("lucene")
    if not path.is_file():
        write_passages(path, corpus.passages())
    start = time.perf_counter()
    if not ours.is_dir():
        command = [sys.executable, "-m", "convsearch.cli", "index", "--corpus", path, "--out", ours]
        subprocess.run(command, check=True)
        build_s = round(time.perf_counter() - start, 1)
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    else:
        build_s = peak_mb = None
    if not lucene.is_dir():
        build_lucene_index(path, lucene)
    start = time.perf_counter()
    engine = Bm25Backend.load(ours)
    open_s = time.perf_counter() - start
    arrays = engine._arrays
    num_postings = len(arrays.docs)
    array_bytes = sum(array.nbytes for array in arrays)
    row: Row = {
        "passages": num_passages,
        "postings": num_postings,
        "bytes_per_posting": array_bytes / num_postings,
        "index_mb": round(sum(p.stat().st_size for p in ours.iterdir()) / 1e6),
        "build_s": build_s,
        "largest_process_mb": peak_mb,
        "open_s": open_s,
    }
    return corpus, ours, lucene, [row]


def make_queries(
    text_of: Callable[[int], str],
    id_of: Callable[[int], str],
    num_passages: int,
    num_queries: int,
    num_words: int,
    seed: int,
) -> tuple[list[str], list[list[str]]]:
    """Queries as rewrites are: words of the gold passage among words of other passages.

    text_of, id_of: of a passage, by its position.
    """
    rng = np.random.default_rng(seed)
    queries, golds = [], []
    while len(queries) < num_queries:
        gold, *others = rng.integers(0, num_passages, 3).tolist()
        own = text_of(gold).split()
        rest = [word for other in others for word in text_of(other).split()]
        if len(own) < 20 or len(rest) < 20:
            continue
        count = round(num_words * GOLD_SHARE)
        words = rng.choice(own, count).tolist() + rng.choice(rest, num_words - count).tolist()
        queries.append(" ".join(words))
        golds.append([id_of(gold)])
    return queries, golds


def queries_of(num_words: int, num_queries: int) -> int:
    """How many queries of a length are asked: fewer of the long ones."""
    return max(32, num_queries // (1 if num_words < 60 else 2 if num_words < 200 else 4))


def measure(num_passages: int, num_queries: int, rounds: int) -> tuple[list[Row], list[Row]]:
    """Rows of the speed table and of the table of growth."""
    corpus, ours, lucene_dir, growth = make_indexes(num_passages)
    threads = os.cpu_count() or 1
    numba = Bm25Backend.load(ours)
    lucene = LuceneBackend.load(lucene_dir)
    pyserini = Pyserini(lucene_dir, threads)
    rows: list[Row] = []
    for num_words in WORDS:
        count = queries_of(num_words, num_queries)
        queries, golds = make_queries(
            corpus.text, corpus.ids.__getitem__, num_passages, count, num_words, seed=num_words
        )
        found = numba.ranks(queries, golds, TOPK)
        assert found == lucene.ranks(queries, golds, TOPK), "engines disagree"

        def ranks(engine: Retriever | Pyserini, queries=queries, golds=golds):
            return lambda: engine.ranks(queries, golds, TOPK)

        def lists(engine: Retriever, queries=queries):
            return lambda: engine.search(queries, TOPK)

        seconds = interleaved(
            {
                "numba rank": ranks(numba),
                "numba top-100": lists(numba),
                "lucene rank": ranks(lucene),
                "lucene top-100": lists(lucene),
                "pyserini batch_search": ranks(pyserini),
            },
            rounds,
        )
        for name, times in seconds.items():
            rows.append(
                {
                    "engine": name,
                    "passages": num_passages,
                    "query_words": num_words,
                    "queries_per_s_median": count / sorted(times)[len(times) // 2],
                    "ratio_to_pyserini": median_ratio(times, seconds["pyserini batch_search"]),
                    "ratio_to_lucene_top100": median_ratio(times, seconds["lucene top-100"]),
                    "golds_found": sum(rank is not None for rank in found) / count,
                    "golds_first": sum(rank == 1 for rank in found) / count,
                    "machine": processor(),
                }
            )
        print(markdown(rows[-len(seconds) :]), file=sys.stderr, flush=True)
    return rows, growth


def main() -> None:
    """Measures and writes `benchmarks/results/bm25.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small corpus, few queries")
    parser.add_argument("--passages", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.passages, options.queries, options.rounds = [50_000], 128, 3
    speed: list[Row] = []
    growth: list[Row] = []
    for num_passages in options.passages:
        rows, grown = measure(num_passages, options.queries, options.rounds)
        speed += rows
        growth += grown
        if not options.quick:
            command = " ".join(["python3 benchmarks/bm25.py", *sys.argv[1:]])
            write_results("bm25", command, {"rows": speed, "growth": growth})
    print(markdown(speed), markdown(growth), sep="\n\n")


if __name__ == "__main__":
    main()
