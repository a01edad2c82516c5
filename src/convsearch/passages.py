"""`corpus.jsonl`: one passage a line, `doc_id`, `title`, `text`. Ids are unique, which is checked
with eight bytes for each: a corpus may hold tens of millions.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from convsearch.errors import DataError
from convsearch.files import Record, field, id_field, read_jsonl, write_jsonl
from convsearch.types import Passage

T = TypeVar("T")
_SUSPECTS = 1_000_000
"""Ids that are compared at once where their hashes are equal."""


def parse_passage(record: Record, where: str) -> Passage:
    """One passage of `corpus.jsonl`. Raises DataError for a missing field or a wrong type."""
    doc_id = id_field(record, "doc_id", where)
    title, text = (field(record, name, str, where) for name in ("title", "text"))
    return Passage(doc_id=doc_id, title=title, text=text)


def iter_passages(path: Path) -> Iterator[Passage]:
    """Streams `corpus.jsonl`; see `unique_passages`."""
    return unique_passages(
        path, lambda: ((where, parse_passage(record, where)) for where, record in read_jsonl(path))
    )


def unique_passages(
    path: Path, read: Callable[[], Iterable[tuple[str, Passage]]]
) -> Iterator[Passage]:
    """Streams a corpus. Raises DataError at the end, where an id occurred twice or the file is
    empty: use what was read only when this is exhausted. Holds eight bytes for each passage.

    path: as errors name the corpus. read: (place, passage) of each, from the beginning by each
    call; called again only where hashes of ids are equal.
    """
    num_passages = 0
    for _, passage in unique(
        read(),
        lambda found: found[1].doc_id,
        lambda: ((where, again.doc_id) for where, again in read()),
    ):
        num_passages += 1
        yield passage
    if not num_passages:
        raise DataError(f"{path}: the corpus is empty; it must hold at least one passage")


def unique(
    items: Iterable[T], id_of: Callable[[T], str], places: Callable[[], Iterable[tuple[str, str]]]
) -> Iterator[T]:
    """Streams items, and raises DataError at the end where an id occurred twice.

    Holds eight bytes for each. places: as `refuse_repeats` takes it.
    """
    hashes: array[int] = array("q")
    for item in items:
        hashes.append(hash(id_of(item)))
        yield item
    refuse_repeats(places, repeated(hashes))


def refuse_repeated_ids(path: Path, suspects: Collection[int]) -> None:
    """`refuse_repeats` of `corpus.jsonl`."""

    def places() -> Iterator[tuple[str, str]]:
        for where, record in read_jsonl(path):
            yield where, id_field(record, "doc_id", where)

    refuse_repeats(places, suspects)


def refuse_repeats(
    places: Callable[[], Iterable[tuple[str, str]]], suspects: Collection[int]
) -> None:
    """Reads a corpus again and raises DataError with the first place that repeats an id.

    places: (place, id) of each passage, read from the beginning by each call. suspects: values of
    `hash(id)` that occurred more than once; where they are of different ids after all, nothing is
    raised.
    """
    rest = sorted(suspects)
    for first in range(0, len(rest), _SUSPECTS):  # of a corpus that is there twice, not all at once
        now = set(rest[first : first + _SUSPECTS])
        seen: dict[str, str] = {}
        for where, doc_id in places():
            if hash(doc_id) not in now:
                continue
            if doc_id in seen:
                raise DataError(
                    f"{where}: doc_id {doc_id!r} occurs twice, first {_beside(where, seen[doc_id])}"
                    "; passage ids must be unique: remove one of the two, or give it another id"
                )
            seen[doc_id] = where


def _beside(where: str, before: str) -> str:
    """The earlier place as said after the later one: its line where both are of one file."""
    file, _, line = before.rpartition(":")
    same = line.isdigit() and file == where.rpartition(":")[0]
    return f"in line {line}" if same else f"at {before}"


def repeated(hashes: "array[int]") -> list[int]:
    """Values of an array("q") that occur more than once; sorts it in place."""
    import numpy as np

    values = np.frombuffer(hashes, dtype=np.int64)
    values.sort()
    return np.unique(values[1:][values[1:] == values[:-1]]).tolist()


def write_passages(path: Path, passages: Iterable[Passage]) -> int:
    """Writes `corpus.jsonl`; returns how many."""
    return write_jsonl(path, map(vars, passages))  # asdict copies, which costs as much as writing
