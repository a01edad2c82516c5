"""What `convsearch ann` says that an index will take, and what building it takes.

    python3 benchmarks/ann_forecast.py            # half an hour on two cores
    python3 benchmarks/ann_forecast.py --quick    # two factories over 20,000 vectors, a minute

Vectors are random, around a common mean; those of one size stay in `runs/bench/ann`. Each index is
forecast and built in a process of its own, with snapshots as the command makes them. Memory is the
largest RssAnon while it trains and adds, less that before: what is beside the mapped vectors.
"""

import argparse
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from processes import in_a_process, memory_mb
from tables import Row, markdown, write_results

from retriever_server.dense.ann_build import build_ann, in_making
from retriever_server.dense.ann_forecast import forecast_ann
from retriever_server.dense.faiss_index import import_faiss
from retriever_server.dense.vectors import SHARD_ROWS, Vectors, finish_vectors, write_shard

FOLDER = Path("runs/bench/ann")
CASES = (
    (20_000, 64, ("PQ4x14np",)),
    (200_000, 256, ("IVF1024,SQ8", "PCA64,IVF1024,SQ8", "IVF256,PQ32x4fs,RFlat")),
    (200_000, 768, ("IVF1024,SQ8", "IVF256,PQ48x4fs,RFlat")),
    (100_000, 256, ("HNSW32", "OPQ16,IVF256,PQ16")),
    (200_000, 256, ("OPQ16_64,IVF1024,PQ16",)),
    (200_000, 768, ("IVF1024,PQ48", "PQ96x10np")),
    (20_000, 256, ("PQ32", "OPQ64,PQ64")),
)
QUICK = ((20_000, 64, ("IVF64,SQ8", "OPQ16,IVF16,PQ16x4")),)


def stored_vectors(number: int, dim: int) -> Path:
    """A folder with that many random vectors, in bfloat16."""
    folder = FOLDER / f"{number}x{dim}"
    if not (folder / "vectors.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        mean_D, shards = rng.standard_normal(dim, dtype=np.float32), []
        for first in range(0, number, SHARD_ROWS):
            rows = min(SHARD_ROWS, number - first)
            values_ND = mean_D + rng.standard_normal((rows, dim), dtype=np.float32)
            shards.append(write_shard(folder, len(shards), values_ND, "bfloat16"))
        finish_vectors(folder, shards, encoder_id="0" * 64, dim=dim, name="bfloat16")
    return folder


def measure(folder: Path, out: Path, factory: str, connection: Connection) -> None:
    """Sends what was said and taken, and when the building began; in a process of its own."""
    vectors = Vectors(folder)
    start = time.perf_counter()
    said = forecast_ann(vectors, factory)
    began = time.perf_counter()
    before_mb = memory_mb_now()
    trained = [began]

    def progress(what: str, done: float) -> None:
        if what == "training" and done:
            trained.append(time.perf_counter())

    with in_making(out, vectors, factory) as snapshots:
        build_ann(vectors, factory, snapshots, on_progress=progress)
        size = snapshots.path.stat().st_size
    ended = time.perf_counter()
    least, most = (said.add_s + train_s for train_s in said.train_s)
    index_bytes = said.index_bytes or 0
    row: Row = {
        "factory": factory,
        "vectors": f"{len(vectors):,} x {vectors.dim}",
        "disk MB said": index_bytes / 1e6,
        "disk MB": size / 1e6,
        "memory MB said": (said.memory_bytes - said.vector_bytes) / 1e6,
        "s said": f"{least:.0f} to {most:.0f}",
        "s": ended - began,
        "s of the trial": began - start,
    }
    connection.send((row, began, before_mb))


def memory_mb_now() -> float:
    """Private memory of this process, what FAISS has freed given back."""
    import ctypes
    import os

    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return memory_mb(os.getpid())[0]


def main() -> None:
    """Prints the table; without --quick also writes it to `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    import_faiss()
    rows: list[Row] = []
    for number, dim, factories in QUICK if quick else CASES:
        folder = stored_vectors(number, dim)
        for factory in factories:
            out = FOLDER / "made" / "ann"
            shutil.rmtree(out.parent, ignore_errors=True)  # or a killed build would go on
            (row, began, before_mb), samples = in_a_process(measure, folder, out, factory)
            most_mb = max(sample.private_mb for sample in samples if sample.at_s > began)
            seconds, trial = row.pop("s"), row.pop("s of the trial")
            said = row.pop("s said")
            row |= {"memory MB": most_mb - before_mb, "s said": said, "s": seconds}
            rows.append({**row, "s of the trial": trial})
            print(markdown(rows[-1:]).splitlines()[-1], flush=True)
    if not quick:
        write_results("ann_forecast", "python3 benchmarks/ann_forecast.py", {"forecasts": rows})


if __name__ == "__main__":
    main()
