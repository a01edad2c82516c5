"""Speed of exact dense ranks and lists against FAISS Flat, and against plain matrix products.

    python3 benchmarks/dense.py [--quick] [--passages 200000 1000000]

Engines take turns in every round, so that a slow phase of the machine meets all of them; medians
over rounds, ratios within a round. Vectors are random: 128 passages are golds of 8 queries each,
at distances that put some of them beyond rank 100. Writes results/dense.json and results/dense.md;
`--quick` prints only.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
from tables import Row, interleaved, markdown, median_ratio, processor, write_results

from retriever_server.cores import num_cores
from retriever_server.dense import dots
from retriever_server.dense.byte_filter import ByteFilter, byte_loop
from retriever_server.dense.exact_rank import Golds, RankEngine
from retriever_server.dense.filters import Filter
from retriever_server.dense.lists import top_lists
from retriever_server.dense.part import choose_lists
from retriever_server.dense.tile_filter import TileFilter
from retriever_server.dense.units import choose_filters
from retriever_server.dense.vectors import SHARD_ROWS, Vectors, finish_vectors, write_shard

TOPK = 100
QUERIES_OF_A_GOLD = 8
GEMM_ROWS, GEMM_REPEATS = 8192, 25
FAISS = "faiss flat top-100"


def make_case(folder: Path, passages: int, dim: int, num_queries: int):
    """(stored vectors, FAISS index of the same rounded vectors, queries, gold positions)."""
    rng = np.random.default_rng(0)
    index, shards = faiss.IndexFlatIP(dim), []
    for number, first in enumerate(range(0, passages, SHARD_ROWS)):
        rows = min(SHARD_ROWS, passages - first)
        values = rng.standard_normal((rows, dim), dtype=np.float32)
        values = torch.from_numpy(values).bfloat16().float().numpy()
        shards.append(write_shard(folder, number, values, "bfloat16"))
        index.add(values)
    finish_vectors(folder, shards, encoder_id="random", dim=dim, name="bfloat16")
    golds = np.repeat(
        rng.integers(0, passages, -(-num_queries // QUERIES_OF_A_GOLD)), QUERIES_OF_A_GOLD
    )[:num_queries]
    distance = rng.uniform(2, 8, num_queries)[:, None]
    gold_vectors = np.stack([index.reconstruct(int(gold)) for gold in golds])
    noise = rng.standard_normal((num_queries, dim))
    queries = ((gold_vectors + distance * noise) / distance).astype(np.float32)
    return Vectors(folder), index, queries, golds


def products(queries: np.ndarray) -> dict[str, Callable[[], object]]:
    """Plain products of as many queries with 8,192 rows, by the libraries, 25 times, into memory
    that is there already; the bfloat16 ones in the order that torch is fastest in."""
    rng = np.random.default_rng(1)
    block = rng.standard_normal((GEMM_ROWS, queries.shape[1]), dtype=np.float32)
    half_queries, half_block = (torch.from_numpy(values).bfloat16() for values in (queries, block))
    half_out = torch.empty(GEMM_ROWS, len(queries), dtype=torch.bfloat16)
    out = np.empty((len(queries), GEMM_ROWS), dtype=np.float32)
    return {
        "float32": lambda: [np.matmul(queries, block.T, out=out) for _ in range(GEMM_REPEATS)],
        "bfloat16": lambda: [
            torch.mm(half_block, half_queries.T, out=half_out) for _ in range(GEMM_REPEATS)
        ],
    }


def all_filters(vectors: Vectors) -> dict[str, Sequence[Filter]]:
    """Float32, what this machine takes, and the other ways to multiply bytes that it has."""
    chosen = choose_filters(vectors)
    filters: dict[str, Sequence[Filter]] = {"float32": []}
    if chosen and isinstance(chosen[0], TileFilter):
        filters["bfloat16 tiles"] = chosen
    for kind in dots.here():
        by = ByteFilter(kind, byte_loop(kind), vectors)
        filters[f"bytes by {kind.name}"] = [by] * num_cores()
    return filters


def measure(passages: int, dim: int, num_queries: int, rounds: int) -> tuple[list[Row], list[Row]]:
    """Rows of the engines and of the plain products, of one size."""
    with tempfile.TemporaryDirectory() as folder:
        vectors, index, queries, gold = make_case(Path(folder), passages, dim, num_queries)
        order = np.arange(passages)
        golds = Golds(
            score_Q=np.asarray([vectors.scores(q, np.asarray([g]))[0]
                                for q, g in zip(queries, gold, strict=True)]),
            order_Q=order[gold],
        )  # fmt: skip
        engines = {
            kind: RankEngine(vectors, order, by) for kind, by in all_filters(vectors).items()
        }
        counts = [engine.count_before(queries, golds, TOPK) for engine in engines.values()]
        assert all(np.array_equal(np.minimum(c, TOPK), np.minimum(counts[0], TOPK)) for c in counts)

        def rank(engine: RankEngine, topk: int) -> Callable[[], object]:
            return lambda: engine.count_before(queries, golds, topk)

        def lists(engine: RankEngine) -> Callable[[], object]:
            chosen = choose_lists(engine)
            if chosen is None:
                return lambda: top_lists(vectors, order, queries, TOPK)
            return lambda: chosen.top_lists(order, queries, TOPK)

        calls: dict[str, Callable[[], object]] = {FAISS: lambda: index.search(queries, TOPK)}
        for kind, engine in engines.items():
            calls[f"exact rank, {kind}"] = rank(engine, TOPK)
        for kind in list(engines)[:2]:  # float32, and what this machine takes
            calls[f"exact rank without cut, {kind}"] = rank(engines[kind], passages + 1)
            calls[f"exact lists of {TOPK}, {kind}"] = lists(engines[kind])
        plain = products(queries)
        seconds = interleaved({**calls, **plain}, rounds, pause=0.2)
    flop = 2 * dim * num_queries / 1e12
    rates = {
        kind: flop * GEMM_ROWS * GEMM_REPEATS / statistics.median(seconds[kind]) for kind in plain
    }
    engine_rows: list[Row] = []
    for name in calls:
        times = seconds[name]
        kind = "float32" if name == FAISS or name.endswith("float32") else "bfloat16"
        engine_rows.append(
            {
                "engine": name,
                "passages": passages,
                "dim": dim,
                "queries": num_queries,
                "queries_per_s_median": num_queries / statistics.median(times),
                "ratio_to_faiss": median_ratio(times, seconds[FAISS]),
                "fraction_of_gemm": flop * passages / statistics.median(times) / rates[kind],
                "gemm": kind,
                "golds_found": float((counts[0] < TOPK).mean()),
                "machine": processor(),
            }
        )
    return engine_rows, [
        {"product": kind, "tflops_median": rate, "rows": GEMM_ROWS, "queries": num_queries}
        for kind, rate in rates.items()
    ]


def units() -> str:
    """What this processor multiplies with."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    known = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    return ", ".join(name for name in known if name in flags)


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200,000 passages, three rounds")
    parser.add_argument("--passages", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.quick:
        options.passages, options.rounds = [200_000], 3
    engines: list[Row] = []
    plain: list[Row] = []
    for passages in options.passages:
        measured = measure(passages, options.dim, options.queries, options.rounds)
        engines += measured[0]
        plain += measured[1]
    versions: list[Row] = [
        {"units": units(), "torch": torch.__version__, "faiss": faiss.__version__,
         "numpy": np.__version__, "rounds": options.rounds}
    ]  # fmt: skip
    if not options.quick:
        command = " ".join(["python3 benchmarks/dense.py", *arguments])
        write_results("dense", command, {"rows": engines, "products": plain, "versions": versions})
    print(markdown(engines), markdown(plain), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
