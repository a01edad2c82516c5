"""The passages of an index on disk: one JSON line each, found by offset, never all in memory.

Files, all memory-mapped, so that a store of any size is open at once:
`passages.jsonl`, `offsets.npy` (start of each line and the end of the last), `doc_ids.txt` (one id
a line, in corpus order: line i is position i), `doc_id_offsets.npy`, `id_order.npy` (place of each
position among the ids in ascending order), `id_hashes.npy` (sorted) and `id_positions.npy` (the
position that each hash stands for).
"""

import hashlib
import heapq
import itertools
import json
import mmap
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError
from convsearch.files import writing
from convsearch.retrieval.checks import refuse_unknown
from convsearch.types import Passage
from retriever_server.saving import save_array

_PASSAGES, _IDS = "passages.jsonl", "doc_ids.txt"
_OFFSETS, _ID_OFFSETS = "offsets.npy", "doc_id_offsets.npy"
_ORDER, _HASHES, _POSITIONS = "id_order.npy", "id_hashes.npy", "id_positions.npy"
STORE_FILES = (_PASSAGES, _IDS, _OFFSETS, _ID_OFFSETS, _ORDER, _HASHES, _POSITIONS)
_RUN_IDS = 1_000_000
"""Ids that are sorted in memory at once, about 100 MB."""

Int64s = npt.NDArray[np.int64]


def passage_line(passage: Passage) -> bytes:
    """A passage as a line of `passages.jsonl`."""
    return json.dumps([passage.doc_id, passage.title, passage.text]).encode() + b"\n"


class RepeatedIdError(DataError):
    """An id that two passages have."""

    def __init__(self, doc_id: str) -> None:
        super().__init__(f"doc_id {doc_id!r} occurs twice; passage ids must be unique")
        self.doc_id = doc_id


def write_store(folder: Path, passages: Iterable[Passage]) -> Iterator[Passage]:
    """Yields each passage after writing it; the store is complete when this is exhausted.

    Raises RepeatedIdError at the end where an id occurs twice.
    """
    ends, id_ends = array("q", [0]), array("q", [0])
    with (
        writing(folder / _IDS),
        (folder / _IDS).open("wb") as ids,
        writing(folder / _PASSAGES),
        (folder / _PASSAGES).open("wb") as out,
    ):
        for passage in passages:
            ends.append(ends[-1] + out.write(passage_line(passage)))
            id_ends.append(id_ends[-1] + ids.write(passage.doc_id.encode() + b"\n"))
            yield passage
    finish_store(folder, np.frombuffer(ends, np.int64), np.frombuffer(id_ends, np.int64))


def finish_store(folder: Path, ends: Int64s, id_ends: Int64s) -> None:
    """Writes the tables of a store whose lines are written.

    ends, id_ends: 0 and the end of each line of the passages and of the ids, in bytes.
    Raises RepeatedIdError where an id occurs twice.
    """
    save_array(folder / _OFFSETS, ends.astype(np.int64))
    save_array(folder / _ID_OFFSETS, id_ends.astype(np.int64))
    num_passages = len(ends) - 1
    hashes = np.empty(num_passages, dtype=np.uint64)
    with (folder / _IDS).open("rb") as ids:
        for position, line in enumerate(ids):
            hashes[position] = _hash(line[:-1])
    positions = np.argsort(hashes, kind="stable").astype(np.int32)
    save_array(folder / _HASHES, hashes[positions])
    save_array(folder / _POSITIONS, positions)
    save_array(folder / _ORDER, _id_order(folder / _IDS, num_passages))


def _hash(doc_id: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(doc_id, digest_size=8).digest(), "little")


def _id_order(path: Path, num_ids: int) -> npt.NDArray[np.int32]:
    """Place of each id in ascending order; ids are sorted in runs on disk, then merged."""
    order = np.empty(num_ids, dtype=np.int32)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, path.open("rb") as ids:
        runs = [
            _write_run(Path(scratch) / str(number), itertools.islice(ids, _RUN_IDS), start)
            for number, start in enumerate(range(0, num_ids, _RUN_IDS))
        ]
        previous = None
        merged = heapq.merge(*map(_read_run, runs))
        for place, (doc_id, position) in enumerate(merged):
            if doc_id == previous:
                raise RepeatedIdError(doc_id.decode())
            order[position] = place
            previous = doc_id
    return order


def _write_run(path: Path, ids: Iterable[bytes], start: int) -> Path:
    with writing(path), path.open("wb") as out:
        for doc_id, position in sorted((line[:-1], start + i) for i, line in enumerate(ids)):
            out.write(b"%s\t%d\n" % (doc_id, position))
    return path


def _read_run(path: Path) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as lines:
        for line in lines:
            doc_id, _, position = line.rpartition(b"\t")
            yield doc_id, int(position)


class PassageStore:
    """Passages by id and by position. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the files do not fit together."""
        self.folder = folder
        self._offsets: Int64s = self._table(_OFFSETS, np.int64)
        self._id_offsets: Int64s = self._table(_ID_OFFSETS, np.int64)
        self.id_order_N: npt.NDArray[np.int32] = self._table(_ORDER, np.int32)
        """Place of each position among all ids in ascending order, as strings."""
        self._hashes: npt.NDArray[np.uint64] = self._table(_HASHES, np.uint64)
        self._hash_positions: npt.NDArray[np.int32] = self._table(_POSITIONS, np.int32)
        self._passages = self._lines(_PASSAGES, self._offsets)
        with self._lines(_IDS, self._id_offsets) as ids:
            # mapped: a read for each id would give the interpreter's lock away a hundred times a
            # list, and the threads that wait for it would queue up in front of the event loop
            self._ids = mmap.mmap(ids.fileno(), 0, access=mmap.ACCESS_READ) if len(self) else b""
        lengths = {len(self), *map(len, (self.id_order_N, self._hashes, self._hash_positions))}
        if len(self._id_offsets) != len(self._offsets) or len(lengths) > 1:
            raise self._error("passages, ids and their tables differ in number")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def doc_id(self, position: int) -> str:
        """The id of the passage at a position."""
        return self.doc_ids([position])[0]

    def doc_ids(self, positions: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """The ids of the passages at these positions."""
        places = np.asarray(positions, dtype=np.int64)
        starts, ends = self._id_offsets[places].tolist(), self._id_offsets[places + 1].tolist()
        ids = self._ids
        return [ids[a : b - 1].decode() for a, b in zip(starts, ends, strict=True)]

    def positions(self, doc_ids: Sequence[str]) -> list[int]:
        """Positions of these ids. Raises UnknownPassageError for ids that are not in the index."""
        positions = self.find(doc_ids)
        refuse_unknown(
            [doc_id for doc_id, at in zip(doc_ids, positions, strict=True) if at is None]
        )
        return [position for position in positions if position is not None]

    def unknown(self, doc_ids: Sequence[str]) -> list[str]:
        """Those of the ids that are not in the index."""
        found = zip(doc_ids, self.find(doc_ids), strict=True)
        return [doc_id for doc_id, position in found if position is None]

    def find(self, doc_ids: Sequence[str]) -> list[int | None]:
        """The position of each id, None for one that is not in the index."""
        if not len(self):
            return [None] * len(doc_ids)
        # "surrogatepass": JSON can carry halves of pairs, which no id of an index holds
        keys = (doc_id.encode("utf-8", "surrogatepass") for doc_id in doc_ids)
        hashes = np.asarray([*map(_hash, keys)], dtype=np.uint64)
        places = np.searchsorted(self._hashes, hashes)
        likely = self._hash_positions[np.minimum(places, len(self) - 1)]
        return [
            position if found == doc_id else self._position(doc_id, key, place)
            for doc_id, found, position, key, place in zip(
                doc_ids, self.doc_ids(likely), likely.tolist(), hashes.tolist(), places.tolist(),
                strict=True,
            )
        ]  # fmt: skip

    def _position(self, doc_id: str, key: int, place: int) -> int | None:
        while place < len(self) and int(self._hashes[place]) == key:  # two ids may share a hash
            position = int(self._hash_positions[place])
            if self.doc_id(position) == doc_id:
                return position
            place += 1
        return None

    def read(self, doc_ids: Sequence[str]) -> list[Passage]:
        """The passages with these ids. Raises DataError for an unknown id."""
        return [self.at(position) for position in self.positions(doc_ids)]

    def at(self, position: int) -> Passage:
        """The passage at a position."""
        start, end = int(self._offsets[position]), int(self._offsets[position + 1])
        doc_id, title, text = json.loads(os.pread(self._passages.fileno(), end - start, start))
        return Passage(doc_id=doc_id, title=title, text=text)

    def _table(self, name: str, dtype: type) -> npt.NDArray:
        try:
            table = np.asarray(np.load(self.folder / name, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise self._error(f"{name} cannot be read ({error})") from None
        if table.dtype != dtype or table.ndim != 1:
            raise self._error(f"{name} holds {table.dtype}{list(table.shape)}")
        return table

    def _lines(self, name: str, ends: Int64s) -> IO[bytes]:
        try:
            lines = (self.folder / name).open("rb")
        except OSError as error:
            raise self._error(f"{name} cannot be read ({error})") from None
        if len(ends) == 0 or os.fstat(lines.fileno()).st_size != ends[-1]:
            raise self._error(f"{name} is longer or shorter than its table says")
        return lines

    def _error(self, what: str) -> DataError:
        return DataError(f'{self.folder}: {what}; rebuild the index with "convsearch index"')
