"""Builds an approximate index so that a kill costs little: trained once, added block by block.

The folder of an index in making (`ann.partial`) holds `whole/index.faiss`, the last snapshot, and
`snapshots.json` with the SHA-256 of it and of the one that takes its name next, so that a kill
between the two leaves one that is known. How many vectors a snapshot holds FAISS itself tells. What
is not as written counts for nothing, and the work is done again.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convsearch.errors import ConfigError, WriteError
from convsearch.files import atomic_write
from convsearch.passport import sha256_of
from retriever_server.dense.ann import INDEX
from retriever_server.dense.faiss_index import core, import_faiss, new_index, reason
from retriever_server.dense.filters import as_float32
from retriever_server.dense.formats import Floats, decode
from retriever_server.dense.vectors import Vectors
from retriever_server.making import held, partial_folder
from retriever_server.manifest import put_in_place

ADD_ROWS = 16_384
"""Vectors added at once."""
SNAPSHOT_S = 30.0
"""Seconds between snapshots at least, which is what a kill costs."""
_SNAPSHOT_SHARE = 10
"""And this many times what the last one took, so that writing them is a tenth of the work."""
_TRAIN_ROWS = 262_144

Progress = Callable[[str, float], None]
"""Called with `training` and the share done, then `adding` and the number of vectors in."""


def train_positions(num_vectors: int) -> npt.NDArray[np.int64]:
    """The vectors that an index is trained on: 262,144 at most, at even steps."""
    return np.arange(0, num_vectors, max(1, -(-num_vectors // _TRAIN_ROWS)))


def decoded(vectors: Vectors, positions: npt.NDArray[np.int64]) -> Floats:
    """The vectors at these positions as float32, without a second copy of all."""
    values_ND = np.empty((len(positions), vectors.dim), dtype=np.float32)
    for first in range(0, len(positions), ADD_ROWS):
        rows = slice(first, first + ADD_ROWS)
        values_ND[rows] = decode(vectors.gather(positions[rows]), vectors.format)
    return values_ND


class Snapshots:
    """The index in making on disk. Of one process at a time."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        """settings: what the index is made of; a snapshot of anything else counts for nothing."""
        self._settings = dict(settings)
        self._card = folder / "snapshots.json"
        self._written = folder / "snapshot.tmp"
        self.whole = folder / "whole"
        self.path = self.whole / INDEX
        self.whole.mkdir(exist_ok=True)
        self._written.unlink(missing_ok=True)  # of a process that was killed

    def load(self) -> Any | None:
        """The FAISS index of the last one, None where there is none that can be trusted."""
        if not self.path.is_file() or sha256_of(self.path) not in self._known():
            return None
        index = import_faiss().read_index(str(self.path))
        _draw_levels_again(core(index))
        return index

    def save(self, index: Any) -> None:
        """Puts the index in place of the last one. Raises WriteError where it cannot be written."""
        try:
            import_faiss().write_index(index, str(self._written))
            with self._written.open("rb") as written:
                os.fsync(written.fileno())
            hashes = [*self._known()[-1:], sha256_of(self._written)]
            with atomic_write(self._card) as out:
                json.dump({"settings": self._settings, "sha256": hashes}, out)
            self._written.replace(self.path)
        except RuntimeError as error:
            raise WriteError(
                f"{self._written}: FAISS could not write it ({reason(error)}); make room and give "
                "the same command again: it goes on at the last snapshot"
            ) from None
        finally:
            self._written.unlink(missing_ok=True)

    def _known(self) -> list[str]:
        try:
            card = json.loads(self._card.read_text(encoding="utf-8"))
            return card["sha256"] if card["settings"] == self._settings else []
        except (OSError, ValueError, KeyError, TypeError):
            return []


@contextmanager
def in_making(out_dir: Path, vectors: Vectors, factory: str) -> Iterator[Snapshots]:
    """Snapshots that outlive a kill; the folder they are in takes the name `out_dir` when the block
    ends without an error. An error before the first one leaves nothing.

    Raises ConfigError where another process builds it, or where it was begun with another factory,
    FAISS or vectors.
    """
    folder = partial_folder(out_dir)
    settings: dict[str, object] = {
        "factory": factory,
        "vectors_sha256": sha256_of(vectors.folder / "vectors.json"),
        "faiss": import_faiss().__version__,
        "train_rows": _TRAIN_ROWS,
        "add_rows": ADD_ROWS,
    }
    with held(folder, settings):
        snapshots = Snapshots(folder, settings)
        try:
            yield snapshots
        except BaseException:
            if not snapshots.path.is_file():
                shutil.rmtree(folder)
            raise
        put_in_place(snapshots.whole, out_dir)
        shutil.rmtree(folder)


def build_ann(
    vectors: Vectors,
    factory: str,
    snapshots: Snapshots,
    *,
    snapshot_s: float = SNAPSHOT_S,
    on_resume: Callable[[int], None] | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Trains on an even sample and adds all vectors, from the last snapshot on. In the end
    `snapshots.path` is the whole index.

    factory: such as `IVF1024,SQ8`. on_resume: called with the number of vectors that a killed build
    has left, where its training was over. Raises ConfigError where FAISS cannot read the factory
    string or cannot train it.
    """
    report = on_progress or (lambda _what, _done: None)
    index = snapshots.load()
    start = time.monotonic()
    try:
        if index is not None:
            if on_resume is not None:
                on_resume(index.ntotal)
        else:
            report("training", 0)
            index = new_index(vectors.dim, factory)
            if not index.is_trained:
                index.train(decoded(vectors, train_positions(len(vectors))))
                start = time.monotonic()
                snapshots.save(index)
        report("training", 1)
        report("adding", index.ntotal)
        while index.ntotal < len(vectors):
            due = time.monotonic() + max(snapshot_s, _SNAPSHOT_SHARE * (time.monotonic() - start))
            for block in vectors.blocks(ADD_ROWS):
                if block.first < index.ntotal:
                    continue
                index.add(as_float32(block))
                report("adding", index.ntotal)
                if time.monotonic() >= due:
                    break
            start = time.monotonic()
            snapshots.save(index)
    except RuntimeError as error:
        raise ConfigError(f"FAISS cannot build {factory!r}: {reason(error)}") from None


def _draw_levels_again(index: Any) -> None:
    """The level of each vector of a graph is drawn at random, and FAISS does not keep where its
    generator was: brings it to where it is after those that are in, for the same graph as without
    a stop."""
    if hasattr(index, "hnsw"):
        for _ in range(index.ntotal):
            index.hnsw.rng.rand_float()
