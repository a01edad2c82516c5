"""What an index will take, said before it is taken: memory, disk, time."""

from dataclasses import dataclass
from pathlib import Path

import psutil

from convsearch.errors import ConfigError
from retriever_server.dense.formats import Format, check_format, item_bytes
from retriever_server.dense.vectors import read_manifest
from retriever_server.memory import free_bytes

_GIGA = 1e9
_STORE_COPY = 1.1
"""Bytes the store takes for each byte of the corpus: the passages again, ids and offsets."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of building one index and of serving it."""

    num_passages: int
    dim: int
    format: Format
    corpus_bytes: int
    passages_per_s: float | None
    """Encoded by all processes together; None where vectors are there already."""

    @property
    def vector_bytes(self) -> int:
        """Disk and, to serve at full speed, memory of all vectors."""
        return self.num_passages * self.dim * item_bytes(self.format)

    @property
    def disk_bytes(self) -> int:
        """Of the finished index."""
        return self.vector_bytes + int(_STORE_COPY * self.corpus_bytes)

    def __str__(self) -> str:
        taken = (
            f"{self.num_passages} passages x {self.dim} in {self.format}: "
            f"{gigabytes(self.disk_bytes)} of disk, {gigabytes(self.vector_bytes)} of memory to "
            "serve"
        )
        if self.passages_per_s is None:
            return taken
        return (
            f"{taken}, about {duration(self.num_passages / self.passages_per_s)} to encode at "
            f"{self.passages_per_s:.1f} passages/s"
        )


def gigabytes(num_bytes: float) -> str:
    """`39.5 GB`; below a tenth of a GB in MB."""
    if num_bytes < _GIGA / 10:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / _GIGA:.1f} GB"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min`, `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def check_memory(vectors_dir: Path) -> None:
    """Raises ConfigError where the vectors of a folder do not fit into free memory. Every search
    reads all of them, so from disk each would take minutes."""
    manifest = read_manifest(vectors_dir)
    name = check_format(manifest["dtype"])
    numbers = sum(shard.rows for shard in manifest["shards"]) * manifest["dim"]
    needed, free = numbers * item_bytes(name), free_bytes()
    if needed <= free:
        return
    half = numbers * item_bytes("bfloat16")
    if name == "float32":
        remedy = (
            f"bfloat16 needs {gigabytes(half)}: rebuild the index with "
            '"convsearch index --engine dense --dtype bfloat16"'
        )
    else:
        remedy = "use a machine with more memory, or search approximately with an index of PQ codes"
    raise ConfigError(
        f"{vectors_dir}: needs {gigabytes(needed)} of memory, {gigabytes(free)} free; {remedy}"
    )


def check_disk(folder: Path, needed: int) -> None:
    """Raises ConfigError where a folder's disk has not that many bytes left."""
    free = psutil.disk_usage(str(folder)).free
    if needed > free:
        raise ConfigError(
            f"{folder}: the index needs {gigabytes(needed)} of disk, {gigabytes(free)} free; "
            "choose another disk, or make room"
        )
