"""What an approximate index will take, found by trying its factory on a few vectors.

Tried are the training of transforms and codes and the adding of vectors. Coarse centroids are given
instead of trained, which would take the hours that are to be forecast; an iteration of their
training is what it takes to find each vector's nearest of as many. Where training repeats the same
steps many times over, few of them are timed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retriever_server import memory
from retriever_server.dense.ann_build import ADD_ROWS, decoded, train_positions
from retriever_server.dense.ann_memory import adding_bytes, training_bytes
from retriever_server.dense.ann_size import bytes_without_lists, lists_bytes
from retriever_server.dense.faiss_index import coder, import_faiss, new_index, transforms
from retriever_server.dense.forecast import check_disk, duration, gigabytes
from retriever_server.dense.formats import Floats
from retriever_server.dense.vectors import Vectors
from retriever_server.making import partial_folder

_CODES_ROWS = 10_240
"""That codes are trained on: FAISS wants 39 for each of 256 centroids. Twice as many, and so on,
where it refuses to train so many centroids on so few."""
_FIRST_ROWS, _ADDED_ROWS = 1_024, 2_048
"""Added before and while bytes and time are taken."""
_ADD_COPIES = 2
"""Times the index is in memory while an array of it grows."""
_SNAPSHOTS = 2
"""Times it is on disk while it is built: the last snapshot, and the one that is written."""
_OPQ_STEPS = 3
"""Of the rotation's training that are timed, of fifty."""


@dataclass(frozen=True, kw_only=True)
class AnnForecast:
    """Of building one approximate index. Sizes are near; times are by proportion from a trial."""

    factory: str
    num_vectors: int
    vector_bytes: int
    """Of the exact vectors, which are read throughout."""
    train_rows: int
    """Vectors that it is trained on; 0 where there is nothing to train."""
    train_bytes: int
    """Memory of the training, beside them."""
    block_bytes: int
    """Memory of adding a block, beside them and the index."""
    index_bytes: int | None
    """Finished, on disk and in memory to serve it; None where FAISS cannot train it."""
    train_s: tuple[float, float] = (0.0, 0.0)
    """At least and at most: as if the codes' training took the same for any number of vectors, and
    in proportion to it. FAISS' is in between."""
    add_s: float = 0.0
    tried_rows: int

    @property
    def memory_bytes(self) -> int:
        """To build it: the vectors, and the larger of training and adding."""
        adding = _ADD_COPIES * (self.index_bytes or 0) + self.block_bytes
        return self.vector_bytes + max(self.train_bytes, adding)

    @property
    def disk_bytes(self) -> int:
        """To build it."""
        return _SNAPSHOTS * (self.index_bytes or 0)

    @property
    def training(self) -> str:
        """What will be done first, and for how long."""
        least, most = map(duration, self.train_s)
        took = least if least == most else f"{least} to {most}"
        return f"training on {self.train_rows:,} vectors, a single call of FAISS: {took}"

    def after(self, done: int) -> str:
        """What is left of the time where a killed build has left so many vectors."""
        left = max(0.0, 1 - done / self.num_vectors)
        return (
            f"trained already; goes on after {done:,} vectors: about "
            f"{duration(self.add_s * left)} to add the rest"
        )

    def __str__(self) -> str:
        memory_taken = f"{gigabytes(self.memory_bytes)} of memory to build"
        if self.index_bytes is None:
            return (
                f"{self.factory} over {self.num_vectors} vectors: {memory_taken} without the "
                f"index itself, whose size is not known: it cannot be trained on "
                f"{self.tried_rows} vectors"
            )
        index = gigabytes(self.index_bytes)
        least, most = map(duration, self.train_s)
        return (
            f"{self.factory} over {self.num_vectors} vectors: {index} of disk and "
            f"{gigabytes(self.disk_bytes)} while building, {memory_taken}, "
            f"{index} to serve; {least if least == most else f'{least} to {most}'} to train and "
            f"about {duration(self.add_s)} to add, judged by {self.tried_rows} vectors; then the "
            "error is measured"
        )


def forecast_ann(vectors: Vectors, factory: str) -> AnnForecast:
    """Tries the factory on 10,240 vectors, or as many as it wants. Raises ConfigError as
    `new_index` does."""
    index = new_index(vectors.dim, factory)
    all_rows = len(train_positions(len(vectors)))
    train_rows = 0 if index.is_trained else all_rows
    facts: dict[str, Any] = {
        "factory": factory,
        "num_vectors": len(vectors),
        "vector_bytes": vectors.num_bytes,
        "train_rows": train_rows,
        "train_bytes": training_bytes(index, train_rows),
        "block_bytes": adding_bytes(index, min(len(vectors), ADD_ROWS)),
    }
    rows = min(_CODES_ROWS, all_rows)
    while True:
        step = max(1, len(vectors) // rows)
        sample_ND = decoded(vectors, np.arange(0, len(vectors), step)[:rows])
        try:
            return AnnForecast(**facts, **_tried(index, sample_ND, len(vectors), train_rows))
        except RuntimeError:  # of FAISS, for too few vectors; or it cannot train it at all
            if rows == all_rows:
                return AnnForecast(index_bytes=None, tried_rows=rows, **facts)
        rows = min(2 * rows, all_rows)
        index = new_index(vectors.dim, factory)


def refuse_too_large(forecast: AnnForecast, out_dir: Path) -> None:
    """Raises ConfigError where memory or the disk of a folder is too small. What a killed build has
    left for this folder makes room; a finished index in it stays until the new one is there."""
    memory.check_memory(
        f"{out_dir}: building {forecast.factory}",
        forecast.memory_bytes,
        'free some memory, or choose a factory with smaller codes, such as "IVF1024,PQ64"',
    )
    left = sum(path.stat().st_size for path in partial_folder(out_dir).glob("whole/*"))
    check_disk(out_dir.parent, forecast.disk_bytes - left)


def _tried(index: Any, sample_ND: Floats, num_vectors: int, train_rows: int) -> dict[str, Any]:
    """The facts that a trial gives. Raises RuntimeError where FAISS cannot train on the sample."""
    train_s = _train(index, sample_ND, train_rows)
    half = min(_FIRST_ROWS, len(sample_ND) // 2)
    first, added = np.split(sample_ND[: _FIRST_ROWS + _ADDED_ROWS], [half])
    index.add(first)
    before = bytes_without_lists(index)
    add_s = _seconds(lambda: index.add(added))
    a_vector = (bytes_without_lists(index) - before) / len(added)
    left = num_vectors - len(first)
    return {
        "index_bytes": before + round(a_vector * left) + lists_bytes(index, num_vectors),
        "train_s": train_s,
        "add_s": add_s * left / len(added),
        "tried_rows": len(sample_ND),
    }


def _train(index: Any, sample_ND: Floats, train_rows: int) -> tuple[float, float]:
    """Trains all but coarse centroids; returns the least and the most seconds that the whole
    training will take."""
    faiss = import_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    least, most = _train_transforms(index, sample_ND, train_rows)
    codes_rows = train_rows
    if ivf is not None:
        quantizer = faiss.downcast_index(ivf.quantizer)
        codes_rows = min(train_rows, ivf.train_encoder_num_vectors() or train_rows)
        if quantizer.is_trained:
            centroids = _centroids(sample_ND, ivf.nlist, quantizer.d)
            nearest = faiss.IndexFlat(quantizer.d, faiss.METRIC_INNER_PRODUCT)
            nearest.add(centroids)
            asked = _centroids(sample_ND, _ADDED_ROWS, quantizer.d)
            nearest.search(asked[:100], 1)  # threads begin
            rows = min(train_rows, ivf.cp.max_points_per_centroid * ivf.nlist)
            seconds = _seconds(lambda: nearest.search(asked, 1))
            centroids_s = ivf.cp.niter * rows * seconds / len(asked)
            least, most = least + centroids_s, most + centroids_s
            quantizer.add(centroids)
    inner = coder(index)
    order_s, iterations = _order_codes(inner), _cut_iterations(inner)
    codes_s = iterations * _seconds(lambda: index.train(sample_ND))
    larger = max(1.0, codes_rows / len(sample_ND))
    return least + order_s + codes_s, most + order_s + codes_s * larger


def _train_transforms(index: Any, sample_ND: Floats, train_rows: int) -> tuple[float, float]:
    """Trains what comes before the index proper; least and most seconds as of `_train`."""
    least = most = 0.0
    for transform in transforms(index):
        rows, times = train_rows, 1.0
        if hasattr(transform, "niter_pq"):
            rows = min(rows, transform.max_train_points)
            more_at_first = transform.niter_pq_0 / transform.niter_pq - 1
            times = (transform.niter + more_at_first) / _OPQ_STEPS
            transform.niter, transform.niter_pq_0 = _OPQ_STEPS, transform.niter_pq
        if not transform.is_trained:
            seconds = times * _seconds(lambda of=transform, on=sample_ND: of.train(on))
            least += seconds
            most += seconds * max(1.0, rows / len(sample_ND))
        sample_ND = transform.apply(sample_ND)
    return least, most


def _cut_iterations(index: Any) -> int:
    """Where there are more than 256 centroids for each product code, lets FAISS move them once;
    returns how often it would."""
    if not hasattr(index, "pq") or index.pq.nbits <= 8:
        return 1
    iterations = index.pq.cp.niter
    index.pq.cp.niter = 1
    return iterations


def _order_codes(index: Any) -> float:
    """Where FAISS would put product codes in an order in which near ones differ in few bits ("PQ32"
    without "np"), lets it leave that out, and returns the seconds that it takes."""
    faiss = import_faiss()
    if not getattr(index, "do_polysemous_training", False):
        return 0.0
    index.do_polysemous_training = False
    codes, at_once = index.pq, faiss.omp_get_max_threads()
    one = faiss.IndexPQ(at_once, at_once, min(codes.nbits, 8))
    one.do_polysemous_training = True
    one.pq.cp.min_points_per_centroid = 1  # or FAISS warns that they are few
    noise = np.random.default_rng(0).standard_normal((one.pq.ksub, at_once), dtype=np.float32)
    steps = codes.ksub / one.pq.ksub * -(-codes.M // at_once)
    return _seconds(lambda: one.train(noise)) * steps


def _centroids(sample_ND: Floats, number: int, dim: int) -> Floats:
    """Vectors of the sample, repeated with noise where there are too few; of noise alone where the
    factory changes their dimension first."""
    noise = np.random.default_rng(0).standard_normal((number, dim), dtype=np.float32)
    if dim != sample_ND.shape[1]:
        return noise
    chosen = np.resize(np.arange(len(sample_ND)), number)
    return sample_ND[chosen] + noise * (0.3 * sample_ND.std())


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
