"""The passages of an index on disk: one JSON line each, found by offset, never all in memory.

Files: `passages.jsonl`, `offsets.npy` (int64, start of each line and the end of the last),
`doc_ids.txt` (one id a line, in corpus order: line i is position i of the index).
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from convsearch.errors import DataError
from convsearch.types import Passage
from retriever_server.ordering import id_order

_PASSAGES, _OFFSETS, _IDS = "passages.jsonl", "offsets.npy", "doc_ids.txt"


def write_store(folder: Path, passages: Iterable[Passage]) -> Iterator[Passage]:
    """Yields each passage after writing it; the store is complete when this is exhausted."""
    offsets = [0]
    with (folder / _PASSAGES).open("wb") as out, (folder / _IDS).open("wb") as ids:
        for passage in passages:
            record = [passage.doc_id, passage.title, passage.text]
            offsets.append(offsets[-1] + out.write(json.dumps(record).encode() + b"\n"))
            ids.write(passage.doc_id.encode() + b"\n")
            yield passage
    np.save(folder / _OFFSETS, np.asarray(offsets, dtype=np.int64))


class PassageStore:
    """Passages by id and by position. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the files do not fit together."""
        self._path = folder / _PASSAGES
        try:
            self.doc_ids = (folder / _IDS).read_text(encoding="utf-8").split("\n")[:-1]
            self._offsets = np.load(folder / _OFFSETS, mmap_mode="r")
            self._file = self._path.open("rb")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder}: the passages of the index cannot be read ({error}); rebuild it with "
                '"convsearch index"'
            ) from None
        if (
            len(self._offsets) != len(self.doc_ids) + 1
            or self._offsets[-1] != self._path.stat().st_size
        ):
            raise DataError(
                f"{folder}: passages, offsets and ids differ in number; rebuild the index with "
                '"convsearch index"'
            )
        self.id_order_N = id_order(self.doc_ids)
        self._positions = {doc_id: position for position, doc_id in enumerate(self.doc_ids)}

    def __len__(self) -> int:
        return len(self.doc_ids)

    def positions(self, doc_ids: Sequence[str]) -> list[int]:
        """Positions of these ids. Raises DataError for an id that is not in the index."""
        for doc_id in doc_ids:
            if doc_id not in self._positions:
                raise DataError(
                    f"passage {doc_id!r} is not in the index; use gold ids of the corpus that was "
                    "indexed"
                )
        return [self._positions[doc_id] for doc_id in doc_ids]

    def read(self, doc_ids: Sequence[str]) -> list[Passage]:
        """The passages with these ids. Raises DataError for an unknown id."""
        return [self._at(position) for position in self.positions(doc_ids)]

    def _at(self, position: int) -> Passage:
        start, end = int(self._offsets[position]), int(self._offsets[position + 1])
        line = os.pread(self._file.fileno(), end - start, start)
        doc_id, title, text = json.loads(line)
        return Passage(doc_id=doc_id, title=title, text=text)
