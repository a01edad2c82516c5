"""Speed of exact dense ranks against FAISS Flat and against the machine's own matrix products.

    python benchmarks/dense.py [--quick] [--passages 1000000]

Engines take turns in every round, so that a slow phase of the machine meets all of them; medians
over rounds, ratios within a round. Vectors are random: 128 passages are golds of 8 queries each,
at distances that put some of them beyond rank 100. Writes results/dense.json and results/dense.md.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import psutil
import torch

from retriever_server.dense.exact_rank import Golds, RankEngine
from retriever_server.dense.torch_filter import TorchFilter
from retriever_server.dense.units import has_bfloat16_units
from retriever_server.dense.vectors import SHARD_ROWS, Vectors, finish_vectors, write_shard

TOPK = 100
QUERIES_OF_A_GOLD = 8
GEMM_BLOCK = 8192
HERE = Path(__file__).parent / "results"


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
    golds = np.repeat(rng.integers(0, passages, -(-num_queries // QUERIES_OF_A_GOLD)), 8)
    golds = golds[:num_queries]
    distance = rng.uniform(2, 8, num_queries)[:, None]
    gold_vectors = np.stack([index.reconstruct(int(gold)) for gold in golds])
    noise = rng.standard_normal((num_queries, dim))
    queries = ((gold_vectors + distance * noise) / distance).astype(np.float32)
    return Vectors(folder), index, queries, golds


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gemm_calls(queries: np.ndarray, dim: int) -> dict[str, tuple[Callable[[], object], float]]:
    """(call, TFLOP of it) for a plain product of each kind, with as many queries."""
    block = np.random.default_rng(1).standard_normal((GEMM_BLOCK, dim), dtype=np.float32)
    half_queries = torch.from_numpy(queries).bfloat16()
    rows = GEMM_BLOCK if has_bfloat16_units() else GEMM_BLOCK // 32  # slow without units
    half_block = torch.from_numpy(block[:rows]).bfloat16()
    work = 2 * len(queries) * dim / 1e12
    return {
        "float32": (lambda: queries @ block.T, work * GEMM_BLOCK),
        "bfloat16": (lambda: half_queries @ half_block.T, work * rows),
    }


def machine() -> dict[str, object]:
    """What the figures hold for."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    model = next((x for x in flags.splitlines() if x.startswith("model name")), "").split(":")[-1]
    return {
        "cpu": model.strip(),
        "cores": len(os.sched_getaffinity(0)),
        "units": [name for name in names if name in flags.split()],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "numpy": np.__version__,
        "load_before": os.getloadavg()[0],
    }


def measure(passages: int, dim: int, num_queries: int, rounds: int) -> dict[str, object]:
    """All rows of one size."""
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        vectors, index, queries, gold = make_case(Path(folder), passages, dim, num_queries)
        order = np.arange(passages)
        engines = {"exact_rank_float32_filter": (RankEngine(vectors, order), TOPK, "float32")}
        engines["exact_rank_float32_filter_without_stop"] = (
            engines["exact_rank_float32_filter"][0], passages + 1, "float32",
        )  # fmt: skip
        if has_bfloat16_units():
            engines["exact_rank_bfloat16_filter"] = (
                RankEngine(vectors, order, [TorchFilter(vectors)]), TOPK, "bfloat16",
            )  # fmt: skip
        golds = Golds(
            score_Q=np.asarray([vectors.scores(q, np.asarray([g]))[0]
                                for q, g in zip(queries, gold, strict=True)]),
            order_Q=order[gold],
        )  # fmt: skip
        counts = {name: engine.count_before(queries, golds, topk)
                  for name, (engine, topk, _) in engines.items()}  # fmt: skip
        first = counts["exact_rank_float32_filter"]
        assert all(np.array_equal(np.minimum(c, TOPK), np.minimum(first, TOPK))
                   for c in counts.values())  # fmt: skip
        calls: dict[str, Callable[[], object]] = {
            "faiss_flat_top100": lambda: index.search(queries, TOPK),
            **{
                name: lambda engine=engine, topk=topk: engine.count_before(queries, golds, topk)
                for name, (engine, topk, _) in engines.items()
            },
        }
        gemms = gemm_calls(queries, dim)
        times: dict[str, list[float]] = {name: [] for name in calls}
        rates: dict[str, list[float]] = {name: [] for name in gemms}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(seconds(call))
                for kind, (product, work) in gemms.items():
                    rates[kind].append(work / min(seconds(product) for _ in range(3)))
    gemm = {kind: statistics.median(found) for kind, found in rates.items()}
    work = 2 * passages * dim * num_queries / 1e12
    rows = []
    for name, found in times.items():
        kind = engines[name][2] if name in engines else "float32"
        rows.append({
            "engine": name, "passages": passages, "dim": dim, "queries": num_queries,
            "queries_per_s_median": round(num_queries / statistics.median(found), 1),
            "ratio_to_faiss": round(statistics.median(
                f / t for f, t in zip(times["faiss_flat_top100"], found, strict=True)), 2),
            "fraction_of_gemm": round(work / statistics.median(found) / gemm[kind], 2),
            "gemm": kind, "machine": f"{about['cpu']}, {about['cores']} cores",
        })  # fmt: skip
    return {
        "rows": rows,
        "golds_found": round(float((first < TOPK).mean()), 3),
        "gemm_tflops": {kind: round(rate, 4) for kind, rate in gemm.items()},
        "rounds": rounds,
        "vector_bytes": vectors.num_bytes,
        "machine": about,
    }


def table(results: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| engine | passages x dim | queries | queries/s | to FAISS | of GEMM |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        lines += [
            f"| {row['engine']} | {row['passages']} x {row['dim']} | {row['queries']} "
            f"| {row['queries_per_s_median']} | {row['ratio_to_faiss']} "
            f"| {row['fraction_of_gemm']} ({row['gemm']}) |"
            for row in result["rows"]
        ]
    about, last = results[-1]["machine"], results[-1]
    lines += [
        "",
        f"{about['cpu']}, {about['cores']} cores ({', '.join(about['units'])}), torch "
        f"{about['torch']}, FAISS {about['faiss']}; {time.strftime('%Y-%m-%d')}; medians of "
        f"{last['rounds']} interleaved rounds; {last['golds_found']:.0%} of the golds are within "
        f"rank {TOPK}. Plain products: float32 {last['gemm_tflops']['float32']} TFLOP/s, bfloat16 "
        f"{last['gemm_tflops']['bfloat16']} TFLOP/s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200,000 passages, three rounds")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    flags = parser.parse_args()
    passages, rounds = (200_000, 3) if flags.quick else (flags.passages, flags.rounds)
    results = [measure(passages, flags.dim, flags.queries, rounds)]
    flags.out.mkdir(parents=True, exist_ok=True)
    text = table(results)
    content = {"rows": [row for result in results for row in result.pop("rows")], "runs": results}
    (flags.out / "dense.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (flags.out / "dense.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
