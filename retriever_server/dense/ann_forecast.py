"""What an approximate index will take, found by trying its factory on a few vectors.

Tried are the codes' training and the adding of vectors. Coarse centroids are given instead of
trained, which would take the hours that are to be forecast; an iteration of their training is what
it takes to find each vector's nearest of as many.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retriever_server import memory
from retriever_server.dense.ann import import_faiss, new_index, train_positions
from retriever_server.dense.forecast import check_disk, duration, gigabytes
from retriever_server.dense.formats import Floats, decode
from retriever_server.dense.vectors import Vectors

_CODES_ROWS = 10_240
"""That codes are trained on: FAISS wants 39 for each of 256 centroids."""
_FIRST_ROWS, _ADDED_ROWS = 1_024, 2_048
"""Added before and while bytes and time are taken."""
_TRAIN_COPIES = 3
"""Times the training sample in float32 is in memory: as it is, decoded from, and FAISS' copy."""
_ADD_COPIES = 2
"""Times the index is in memory while an array of it grows."""


@dataclass(frozen=True, kw_only=True)
class AnnForecast:
    """Of building one approximate index. Sizes are near; times are by proportion from a trial."""

    factory: str
    num_vectors: int
    vector_bytes: int
    """Of the exact vectors, which are read throughout."""
    train_bytes: int
    """Memory of the training, beside them."""
    index_bytes: int | None
    """On disk, and in memory to serve it; None where FAISS could not be tried on so few vectors."""
    train_s: tuple[float, float] = (0.0, 0.0)
    """At least and at most: as if the codes' training took the same for any number of vectors, and
    in proportion to it. FAISS' is in between."""
    add_s: float = 0.0
    tried_rows: int

    @property
    def memory_bytes(self) -> int:
        """To build it: the vectors, and the larger of training and adding."""
        adding = _ADD_COPIES * (self.index_bytes or 0)
        return self.vector_bytes + max(self.train_bytes, adding)

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
            f"{self.factory} over {self.num_vectors} vectors: {index} of disk, {memory_taken}, "
            f"{index} to serve; {least if least == most else f'{least} to {most}'} to train and "
            f"about {duration(self.add_s)} to add, judged by {self.tried_rows} vectors; then the "
            "error is measured"
        )


def forecast_ann(vectors: Vectors, factory: str) -> AnnForecast:
    """Tries the factory on up to 10,240 vectors. Raises ConfigError as `new_index` does."""
    index = new_index(vectors.dim, factory)
    train_rows = len(train_positions(len(vectors)))
    tried = np.arange(0, len(vectors), max(1, len(vectors) // _CODES_ROWS))[:_CODES_ROWS]
    facts: dict[str, Any] = {
        "factory": factory,
        "num_vectors": len(vectors),
        "vector_bytes": vectors.num_bytes,
        "train_bytes": _TRAIN_COPIES * train_rows * vectors.dim * 4,
        "tried_rows": len(tried),
    }
    sample_ND = decode(vectors.gather(tried), vectors.format)
    try:
        train_s = _train(index, sample_ND, train_rows)
        first, added = np.split(sample_ND[: _FIRST_ROWS + _ADDED_ROWS], [_half(len(tried))])
        index.add(first)
        before = _size(index)
        add_s = _seconds(lambda: index.add(added))
    except RuntimeError:  # of FAISS, for too few vectors; or it cannot train it at all
        return AnnForecast(index_bytes=None, **facts)
    a_vector = (_size(index) - before) / len(added)
    left = len(vectors) - len(first)
    return AnnForecast(
        index_bytes=before + round(a_vector * left),
        train_s=train_s,
        add_s=add_s * left / len(added),
        **facts,
    )


def refuse_too_large(forecast: AnnForecast, folder: Path) -> None:
    """Raises ConfigError where memory or the disk of a folder, which an older index in it leaves,
    is too small."""
    memory.check_memory(
        f"{folder}: building {forecast.factory}",
        forecast.memory_bytes,
        'free some memory, or choose a factory with smaller codes, such as "IVF1024,PQ64"',
    )
    older = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
    check_disk(folder if folder.is_dir() else folder.parent, (forecast.index_bytes or 0) - older)


def _half(num_tried: int) -> int:
    return min(_FIRST_ROWS, num_tried // 2)


def _train(index: Any, sample_ND: Floats, train_rows: int) -> tuple[float, float]:
    """Trains all but coarse centroids; returns the least and the most seconds that the whole
    training will take."""
    faiss = import_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    codes_rows, centroids_s = train_rows, 0.0
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
            quantizer.add(centroids)
    order_s = _order_codes(index if ivf is None else ivf)
    codes_s = _seconds(lambda: index.train(sample_ND))
    larger = max(1.0, codes_rows / len(sample_ND))
    return centroids_s + order_s + codes_s, centroids_s + order_s + codes_s * larger


def _order_codes(index: Any) -> float:
    """Where FAISS would put product codes in an order in which near ones differ in few bits ("PQ32"
    without "np"), lets it leave that out, and returns the seconds that it takes."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if not getattr(index, "do_polysemous_training", False):
        return 0.0
    index.do_polysemous_training = False
    codes, at_once = index.pq, faiss.omp_get_max_threads()
    one = faiss.IndexPQ(at_once, at_once, codes.nbits)
    one.do_polysemous_training = True
    one.pq.cp.min_points_per_centroid = 1  # or FAISS warns that they are few
    noise = np.random.default_rng(0).standard_normal((codes.ksub, at_once), dtype=np.float32)
    return _seconds(lambda: one.train(noise)) * -(-codes.M // at_once)


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


def _size(index: Any) -> int:
    """Bytes of the index as it is written."""
    sizes: list[int] = []
    faiss = import_faiss()
    faiss.write_index(index, faiss.PyCallbackIOWriter(lambda data: sizes.append(len(data))))
    return sum(sizes)
