"""How a BM25 index grows: time, memory and disk of a build, and speed, up to 5 million passages.

    python3 benchmarks/growth.py            # 10,000 to 5,000,000 passages: 11 minutes to an hour
    python3 benchmarks/growth.py --quick    # 10,000 and 100,000, two minutes

Each corpus is the beginning of the largest one, made as for `bm25.py`; corpora stay in
`runs/bench/growth`. Every index is built, and opened, by a process of its own. The rows are written
as they are measured, beside older ones of other sizes, so that `--passages 5000000` adds a row.
From the last two from 100,000 passages on follows what larger corpora would need.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from bm25 import TOPK, WORDS, make_queries, queries_of
from processes import folder_mb, forget_pages, in_a_process, memory_mb
from synthetic_corpus import SyntheticCorpus
from tables import RESULTS, Row, markdown, processor, write_results

from convsearch.passages import write_passages
from convsearch.passport import git_revision
from convsearch.types import Passage
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.making import partial_folder
from retriever_server.memory import index_bytes

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
TARGETS = (25_700_000, 54_600_000)
"""Passages of TopiOCQA and of QReCC."""
PIECE = 250_000
"""Passages that are made at once."""
VOCABULARY = 300_000
LEAST_PASSAGES = 100_000
"""Rows of smaller corpora tell nothing of larger ones: they fit into one range of the merge."""
MANY_CORES = 32
"""Of a larger machine, to which the analysis is scaled; the merge runs on one core everywhere."""


def passages(number: int) -> Iterator[Passage]:
    """The first `number` passages of an endless corpus: pieces with the same vocabulary."""
    words = None
    for piece, first in enumerate(range(0, number, PIECE)):
        corpus = SyntheticCorpus(PIECE, vocabulary=VOCABULARY, seed=piece)
        words = words or corpus.words
        corpus.words = words
        for passage in itertools.islice(corpus.passages(), number - first):
            yield replace(passage, doc_id=f"p{first + int(passage.doc_id[1:])}")


def make_corpora(folder: Path, sizes: list[int]) -> dict[int, Path]:
    """The corpus of each size; made where it is not there."""
    paths = {size: folder / f"corpus-{size}.jsonl" for size in sizes}
    largest = paths[max(sizes)]
    if not largest.is_file():
        write_passages(largest, passages(max(sizes)))
    for size, path in paths.items():
        if not path.is_file():
            with largest.open("rb") as lines, path.open("wb") as out:
                out.writelines(itertools.islice(lines, size))
    return paths


def build(corpus: Path, out: Path, answer: Connection) -> None:
    """Builds the index; sends when it began, when the analysis was over and when all was, and the
    processor seconds of the two halves."""
    begun = time.perf_counter()
    analysed = [begun, 0.0]

    def on_progress(phase: str, _: float) -> None:
        if phase == "analysing":
            analysed[:] = time.perf_counter(), time.process_time()

    build_bm25_index(corpus, out, on_progress=on_progress)
    done, own_s = time.perf_counter(), time.process_time()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    merge_cpu_s = own_s - analysed[1]
    cpu_s = (workers.ru_utime + workers.ru_stime + analysed[1], merge_cpu_s)
    answer.send(((begun, analysed[0], done), cpu_s))


def serve(index: Path, num_queries: int, rounds: int, answer: Connection) -> None:
    """Opens the index and asks it for ranks; sends a row."""
    private_before, _ = memory_mb(os.getpid())
    start = time.perf_counter()
    engine = Bm25Backend.load(index)
    row: Row = {"open_s": time.perf_counter() - start}
    store = engine.store

    def text_of(position: int) -> str:
        passage = store.at(position)
        return f"{passage.title} {passage.text}"

    for num_words in WORDS:
        count = queries_of(num_words, num_queries)
        queries, golds = make_queries(
            text_of, store.doc_id, len(store), count, num_words, seed=num_words
        )

        def ranks(queries: list[str] = queries, golds: list[list[str]] = golds) -> object:
            return engine.ranks(queries, golds, TOPK)

        ranks()
        seconds, cpu_seconds = [], []
        for _ in range(rounds):
            start, cpu_start = time.perf_counter(), time.process_time()
            ranks()
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
        row[f"ranks_per_s_{num_words}_words"] = count / statistics.median(seconds)
        row[f"ranks_per_core_s_{num_words}_words"] = count / statistics.median(cpu_seconds)
    row["private_mb"] = memory_mb(os.getpid())[0] - private_before
    answer.send(row)


def open_cold(index: Path, answer: Connection) -> None:
    """Sends the seconds that opening takes, imports not counted."""
    import retriever_server.bm25.kernels  # noqa: F401  compiled kernels, loaded before the clock

    start = time.perf_counter()
    Bm25Backend.load(index)
    answer.send(time.perf_counter() - start)


def measure(corpus: Path, size: int, num_queries: int, rounds: int) -> Row:
    """One row of the table."""
    out = corpus.with_name(f"index-{size}")
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(partial_folder(out), ignore_errors=True)
    load_before = os.getloadavg()[0]
    (times, cpu_s), samples = in_a_process(build, corpus, out)
    begun, analysed, done = times
    analysis = [sample.private_mb for sample in samples if sample.at_s < analysed]
    merge = [sample.private_mb for sample in samples if sample.at_s >= analysed]
    forget_pages(out)
    cold_s, _ = in_a_process(open_cold, out)
    row, _ = in_a_process(serve, out, num_queries, rounds)
    index_mb = folder_mb(out)
    row = {
        "passages": size,
        "build_s": done - begun,
        "analysis_s": analysed - begun,
        "merge_s": done - analysed,
        "analysis_cpu_s": cpu_s[0],
        "merge_cpu_s": cpu_s[1],
        "analysis_private_mb": max(analysis, default=None),
        "merge_private_mb": max(merge, default=None),
        "largest_process_mb": max(sample.largest_mb for sample in samples),
        "peak_disk_mb": max(sample.disk_mb for sample in samples),
        "corpus_mb": corpus.stat().st_size / 1e6,
        "index_mb": index_mb,
        "searched_mb": index_bytes(out) / 1e6,
        "open_cold_s": cold_s,
        **row,
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "commit": git_revision(),
        "machine": processor(),
    }
    shutil.rmtree(out)
    return row


def extrapolate(rows: list[Row]) -> list[Row]:
    """Needs of larger corpora.

    Sizes and the memory of the merge by the straight line through the last two rows from 100,000
    passages on; times by
    proportion to the last one, from its processor seconds, so that other programs that ran do not
    count. The memory of the analysis does not grow; all that is searched should be resident. The
    time of a query grows less than in proportion, so its figures are the slowest to be expected.
    """
    rows = [row for row in rows if _number(row, "passages") >= LEAST_PASSAGES]
    if len(rows) < 2:
        return []
    cores = os.cpu_count() or 1
    found: list[Row] = []
    for target in TARGETS:

        def line(name: str, target: int = target) -> float:
            (x, y), (x2, y2) = [(_number(r, "passages"), _number(r, name)) for r in rows[-2:]]
            return y2 + (target - x2) * (y2 - y) / (x2 - x)

        times = target / _number(rows[-1], "passages")
        analysis_s = times * _number(rows[-1], "analysis_cpu_s")
        merge_s = times * _number(rows[-1], "merge_cpu_s")
        build_mb = max(_number(rows[-1], "analysis_private_mb"), line("merge_private_mb"))
        found.append(
            {
                "passages": target,
                "disk_while_building_gb": (line("corpus_mb") + line("peak_disk_mb")) / 1000,
                "index_gb": line("index_mb") / 1000,
                f"ram_to_build_gb_{cores}_workers": build_mb / 1000,
                "ram_to_serve_gb": (line("searched_mb") + _number(rows[-1], "private_mb")) / 1000,
                f"hours_{cores}_cores": (analysis_s / cores + merge_s) / 3600,
                f"hours_{MANY_CORES}_cores": (analysis_s / MANY_CORES + merge_s) / 3600,
                **{
                    f"ranks_per_core_s_{words}_words": _number(
                        rows[-1], f"ranks_per_core_s_{words}_words"
                    )
                    / times
                    for words in WORDS
                },
            }
        )
    return found


def older_rows() -> list[Row]:
    """The rows of an earlier run."""
    path = RESULTS / "growth.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return value


def main() -> None:
    """Measures and writes `benchmarks/results/growth.json` and `.md`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10,000 and 100,000 passages")
    parser.add_argument("--passages", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/growth"))
    options = parser.parse_args()
    sizes = sorted([10_000, 100_000] if options.quick else options.passages)
    options.folder.mkdir(parents=True, exist_ok=True)
    corpora = make_corpora(options.folder, sizes)
    rows = [] if options.quick else [row for row in older_rows() if row["passages"] not in sizes]
    for size in sizes:
        rows.append(measure(corpora[size], size, options.queries, options.rounds))
        print(markdown(rows[-1:]), file=sys.stderr, flush=True)
        rows.sort(key=lambda row: _number(row, "passages"))
        if not options.quick:
            command = " ".join(["python3 benchmarks/growth.py", *sys.argv[1:]])
            write_results("growth", command, {"rows": rows, "needs": extrapolate(rows)})
    print(markdown(rows), markdown(extrapolate(rows)), sep="\n\n")


if __name__ == "__main__":
    main()
