"""How exact dense ranks grow: time and memory up to 5 million vectors of 768.

    python3 benchmarks/dense_growth.py            # 10,000 to 5,000,000: four minutes, 8 GB
    python3 benchmarks/dense_growth.py --quick    # 10,000 and 100,000

Random vectors in bfloat16, as in `dense.py`, in `runs/bench/dense`; encoding is not part of it.
Each index is made, and opened, by a process of its own. Writes results/dense_growth.json and .md.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from processes import folder_mb, forget_pages, in_a_process, memory_mb
from tables import Row, markdown, processor, write_results

from convsearch.passport import git_revision
from retriever_server.dense.exact_rank import Golds, RankEngine
from retriever_server.dense.units import choose_filters
from retriever_server.dense.vectors import SHARD_ROWS, Vectors, finish_vectors, write_shard

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
TARGETS = (25_700_000, 54_600_000)
"""Passages of TopiOCQA and of QReCC."""
DIM, QUERIES, TOPK = 768, 1024, 100


def build(folder: Path, passages: int, answer: Connection) -> None:
    """Makes the vectors; sends the seconds of the pass over all of them that ends a build."""
    rng = np.random.default_rng(0)
    shards = []
    for number, first in enumerate(range(0, passages, SHARD_ROWS)):
        rows = min(SHARD_ROWS, passages - first)
        values = rng.standard_normal((rows, DIM), dtype=np.float32)
        shards.append(write_shard(folder, number, values, "bfloat16"))
    start = time.perf_counter()
    finish_vectors(folder, shards, encoder_id="random", dim=DIM, name="bfloat16")
    answer.send(time.perf_counter() - start)


def serve(folder: Path, rounds: int, answer: Connection) -> None:
    """Opens the vectors, hashes compared, and ranks a gold for each query; sends a row."""
    import torch  # noqa: F401  the query encoder has it loaded

    start, private_before = time.perf_counter(), memory_mb(os.getpid())[0]
    vectors = Vectors(folder)
    row: Row = {"open_and_compare_s": time.perf_counter() - start}
    start = time.perf_counter()
    filters = choose_filters(vectors)
    engine = RankEngine(vectors, np.arange(len(vectors)), filters)
    row["choose_filter_s"] = time.perf_counter() - start
    rng = np.random.default_rng(1)
    golds = rng.integers(0, len(vectors), QUERIES)
    near = [vectors.gather(np.asarray([gold])).view(np.uint16)[0] for gold in golds]
    values = (np.stack(near).astype(np.uint32) << 16).view(np.float32)
    distance = rng.uniform(2, 8, QUERIES)[:, None]
    queries = (values / distance + rng.standard_normal((QUERIES, DIM))).astype(np.float32)
    wanted = Golds(
        score_Q=np.asarray([vectors.scores(q, np.asarray([g]))[0]
                            for q, g in zip(queries, golds, strict=True)]),
        order_Q=golds.astype(np.int64),
    )  # fmt: skip
    engine.count_before(queries, wanted, TOPK)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        counts = engine.count_before(queries, wanted, TOPK)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    row |= {
        "filter": type(filters[0]).__name__ if filters else "float32",
        f"s_for_{QUERIES}_queries": median,
        "tflops": 2 * DIM * QUERIES * len(vectors) / median / 1e12,
        "golds_found": float((counts < TOPK).mean()),
        "vectors_mb": vectors.num_bytes / 1e6,
        "private_mb": memory_mb(os.getpid())[0] - private_before,
    }
    answer.send(row)


def measure(folder: Path, passages: int, rounds: int) -> Row:
    """One row of the table."""
    folder.mkdir(parents=True)
    try:
        finish_s, samples = in_a_process(build, folder, passages)
        forget_pages(folder)
        row, _ = in_a_process(serve, folder, rounds)
        return {
            "passages": passages,
            "last_pass_of_build_s": finish_s,
            "build_private_mb": max(sample.private_mb for sample in samples),
            "disk_mb": folder_mb(folder),
            **row,
            "load_after": round(os.getloadavg()[0], 1),
            "commit": git_revision(),
            "machine": processor(),
        }
    finally:
        shutil.rmtree(folder)


def extrapolate(last: Row) -> list[Row]:
    """Needs of larger indexes, by proportion to the last row."""
    times = {target: target / int(str(last["passages"])) for target in TARGETS}
    names = ("disk_mb", "vectors_mb", "open_and_compare_s", f"s_for_{QUERIES}_queries")
    return [
        {"passages": target, **{name: factor * float(str(last[name])) for name in names}}
        for target, factor in times.items()
    ]


def main() -> None:
    """Measures and writes `benchmarks/results/dense_growth.json` and `.md`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10,000 and 100,000 passages")
    parser.add_argument("--passages", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/dense"))
    options = parser.parse_args()
    sizes = sorted([10_000, 100_000] if options.quick else options.passages)
    rows: list[Row] = []
    for size in sizes:
        rows.append(measure(options.folder / str(size), size, options.rounds))
        print(markdown(rows[-1:]), file=sys.stderr, flush=True)
    needs = extrapolate(rows[-1])
    if not options.quick:
        command = " ".join(["python3 benchmarks/dense_growth.py", *sys.argv[1:]])
        write_results("dense_growth", command, {"rows": rows, "needs": needs})
    print(markdown(rows), markdown(needs), sep="\n\n")


if __name__ == "__main__":
    main()
