"""Stored vectors: `.npy` shards, memory-mapped, and `vectors.json`, which says what they are.

Shard i holds the vectors of a run of passages in index order. `vectors.json` names the encoder, the
number format, the dimension and each shard with its rows and SHA-256. Beside them lie `mean.npy`
and `extents.npy`, from which the error bounds of `exact_rank` are computed.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError, MissingFileError
from convsearch.files import atomic_write, writing
from convsearch.passport import sha256_of
from retriever_server.cores import num_cores
from retriever_server.dense import kernels
from retriever_server.dense.formats import (
    CODES,
    FORMATS,
    STORED,
    Floats,
    Format,
    Raw,
    bits_of,
    check_format,
    decode,
    encode,
    item_bytes,
)
from retriever_server.parts import Rows
from retriever_server.saving import save_array

FORMAT_VERSION = 2
"""Of the folder of vectors; 1 was a single float32 file."""
SHARD_ROWS = 32_768
EXTENT_ROWS = 1024
"""Rows that share one entry of `extents.npy`."""
_MANIFEST, _MEAN, _EXTENTS = "vectors.json", "mean.npy", "extents.npy"
_REMEDY = 'rebuild the index with "convsearch index --engine dense"'
_MEAN_ROWS = 65_536
"""Rows the mean is taken of; any point would do, a near one makes the bounds narrow."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """A run of rows that lie side by side in one shard."""

    first: int
    """Position of the first row in the index."""
    raw_BD: Raw
    longest: float
    """Upper bound on the lengths of the rows."""
    farthest: float
    """Upper bound on their distances from the mean."""
    left_out: float = 0.0
    """Upper bound on what a filter's own form of them leaves out; see `Filter.take`."""


def shard_name(number: int) -> str:
    """File of a shard."""
    return f"{number:05d}.npy"


def write_shard(folder: Path, number: int, values_ND: Floats, name: Format) -> Shard:
    """Rounds vectors to the format and writes them; the file appears whole or not at all.

    Raises DataError where a number is not finite, or too large for the format.
    """
    raw = encode(values_ND, name)
    finite = np.isfinite(values_ND).all(axis=1) & np.isfinite(decode(raw, name)).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(
            f"{folder / shard_name(number)}: row {row} is not finite in {name}; the embeddings are "
            "broken, or too large for this format: encode them again or choose bfloat16"
        )
    stream = io.BytesIO()
    np.save(stream, raw, allow_pickle=False)
    data = stream.getbuffer()
    path = folder / shard_name(number)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path), temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return Shard(file=path.name, rows=len(raw), sha256=hashlib.sha256(data).hexdigest())


def finish_vectors(
    folder: Path, shards: Sequence[Shard], *, encoder_id: str, dim: int, name: Format
) -> None:
    """Reads all shards once for the bounds, and writes `vectors.json` last."""
    opened = [_open_shard(folder, shard, dim, name) for shard in shards]
    mean_D = _mean(opened, name).astype(np.float32)
    rows = [_extents(raw, mean_D, name) for raw in opened]
    save_array(folder / _MEAN, mean_D)
    save_array(folder / _EXTENTS, np.concatenate(rows))
    manifest = {
        "format": "convsearch-vectors",
        "format_version": FORMAT_VERSION,
        "encoder_id": encoder_id,
        "dtype": name,
        "dim": dim,
        "mean_sha256": sha256_of(folder / _MEAN),
        "extents_sha256": sha256_of(folder / _EXTENTS),
        "shards": [asdict(shard) for shard in shards],
    }
    with atomic_write(folder / _MANIFEST) as out:
        json.dump(manifest, out, indent=1)
        out.write("\n")


def _mean(shards: Sequence[Raw], name: Format) -> npt.NDArray[np.float64]:
    """Mean of rows drawn at even steps from all shards."""
    total = sum(len(raw) for raw in shards)
    step = max(1, total // _MEAN_ROWS)
    sums = sum(decode(raw[::step], name).sum(axis=0, dtype=np.float64) for raw in shards)
    return np.asarray(sums) / max(1, sum(len(raw[::step]) for raw in shards))


def _extents(raw_ND: Raw, mean_D: Floats, name: Format) -> npt.NDArray[np.float64]:
    """(ceil(N / EXTENT_ROWS), 2): bounds on length and on distance from the mean."""
    firsts = range(0, len(raw_ND), EXTENT_ROWS)
    found = np.empty((len(firsts), 2))
    centre = mean_D.astype(np.float64)
    for row, first in enumerate(firsts):
        part = np.ascontiguousarray(raw_ND[first : first + EXTENT_ROWS])
        kernels.extents(bits_of(part), CODES[name], centre, found[row])
    return found * (1 + 1e-9)  # above any rounding of a sum of squares in double precision


def _open_shard(folder: Path, shard: Shard, dim: int, name: Format) -> Raw:
    path = folder / shard.file
    try:
        # private pages: torch takes no array that it may not write to, and nothing writes
        raw = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_REMEDY}") from None
    if raw.shape != (shard.rows, dim) or raw.dtype != STORED[name]:
        raise DataError(
            f"{path}: {raw.dtype} of shape {raw.shape}, but {_MANIFEST} says {shard.rows} rows of "
            f"{dim} in {name}; {_REMEDY}"
        )
    return np.asarray(raw)


def read_manifest(folder: Path) -> dict:
    """`vectors.json`, checked. Raises MissingFileError or DataError."""
    path = folder / _MANIFEST
    if not path.is_file():
        raise MissingFileError(f"{path}: missing; {_REMEDY}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path}: format version {version!r}, this program reads {FORMAT_VERSION}; "
                f"{_REMEDY}"
            )
        if manifest["dtype"] not in FORMATS or not isinstance(manifest["encoder_id"], str):
            raise ValueError
        if not isinstance(manifest["dim"], int) or manifest["dim"] < 1:
            raise ValueError
        manifest["shards"] = [Shard(**shard) for shard in manifest["shards"]]
        manifest["hashes"] = {
            _MEAN: str(manifest["mean_sha256"]), _EXTENTS: str(manifest["extents_sha256"])
        }  # fmt: skip
    except DataError:
        raise
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: damaged; {_REMEDY}") from None
    return manifest


class Vectors:
    """All vectors of an index, read from disk as they are used. Safe for threads."""

    def __init__(self, folder: Path, *, verify: bool = True, rows: Rows | None = None) -> None:
        """verify: see `verify`. rows: what `blocks` gives, cut at `pieces`; None is all.

        Raises MissingFileError or DataError, with the file and what to do.
        """
        manifest = read_manifest(folder)
        self.folder = folder
        self.encoder_id: str = manifest["encoder_id"]
        self.format: Format = check_format(manifest["dtype"])
        self.dim: int = manifest["dim"]
        shards: list[Shard] = manifest["shards"]
        self._shards = [_open_shard(folder, shard, self.dim, self.format) for shard in shards]
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)])
        self.rows = rows or Rows(0, len(self))
        self._files = [(shard.file, shard.sha256) for shard in shards]
        _verify(folder, [*manifest["hashes"].items()])
        if verify:
            self.verify()
        self.mean_D: Floats = np.load(folder / _MEAN, allow_pickle=False)
        extents = np.load(folder / _EXTENTS, allow_pickle=False)
        counts = [-(-shard.rows // EXTENT_ROWS) for shard in shards]
        if self.mean_D.shape != (self.dim,) or extents.shape != (sum(counts), 2):
            raise DataError(f"{folder / _EXTENTS}: does not fit the shards; {_REMEDY}")
        self._extents = np.split(extents, np.cumsum(counts)[:-1])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def code(self) -> int:
        """The format's number for the compiled loops."""
        return CODES[self.format]

    @property
    def num_bytes(self) -> int:
        """Size of the vectors that `blocks` gives."""
        return self.rows.size * self.dim * item_bytes(self.format)

    @property
    def longest(self) -> float:
        """Upper bound on the length of any vector."""
        return max((float(part[:, 0].max()) for part in self._extents if len(part)), default=0.0)

    def blocks(self, rows: int) -> Iterator[Block]:
        """The vectors in index order, at most `rows` (a multiple of EXTENT_ROWS) at a time."""
        for raw, start, extents in zip(self._shards, self._starts, self._extents, strict=False):
            begin, end = max(0, self.rows.first - start), min(len(raw), self.rows.end - start)
            for first in range(begin, end, rows):
                last = min(first + rows, end)
                part = extents[first // EXTENT_ROWS : -(-last // EXTENT_ROWS)]
                yield Block(
                    first=int(start) + first,
                    raw_BD=raw[first:last],
                    longest=float(part[:, 0].max()),
                    farthest=float(part[:, 1].max()),
                )

    def verify(self) -> None:
        """Compares the files that `blocks` reads with their SHA-256. Raises DataError."""
        spans = zip(self._files, self._starts, self._starts[1:], strict=False)
        files = [
            file for file, start, end in spans if start < self.rows.end and end > self.rows.first
        ]
        _verify(self.folder, files)

    def pieces(self) -> npt.NDArray[np.int64]:
        """First position of each run of EXTENT_ROWS, between which an index may be cut."""
        spans = zip(self._starts, self._starts[1:], strict=False)
        return np.concatenate([np.arange(start, end, EXTENT_ROWS) for start, end in spans])

    def gather(self, positions: npt.NDArray[np.int64]) -> Raw:
        """The vectors at these positions, copied, as they are stored."""
        raw: Raw = np.empty((len(positions), self.dim), dtype=np.dtype(STORED[self.format]))
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        for owner in np.unique(owners).tolist():
            mine = owners == owner
            raw[mine] = self._shards[owner][positions[mine] - self._starts[owner]]
        return raw

    def scores(self, query_D: Floats, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Exact scores: inner products in double precision, each of its own pair alone."""
        scores = np.empty(len(positions))
        raw = self.gather(positions)
        kernels.exact_scores(bits_of(raw), self.code, query_D.astype(np.float64), scores)
        return scores


def _verify(folder: Path, files: Sequence[tuple[str, str]]) -> None:
    def check(item: tuple[str, str]) -> None:
        path = folder / item[0]
        if not path.is_file():
            raise DataError(f"{path}: missing; {_REMEDY}")
        if sha256_of(path) != item[1]:
            raise DataError(
                f"{path}: its content is not what was written (SHA-256 differs from {_MANIFEST}); "
                f"copy it again or {_REMEDY}"
            )

    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        list(pool.map(check, files))
