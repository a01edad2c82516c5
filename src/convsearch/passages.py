"""The one reader of passages: `corpus.jsonl` (one a line, `doc_id`, `title`, `text`), and the forms
of other programs (`passage_forms`). Ids are unique, which is checked with eight bytes for each: a
corpus may hold tens of millions.
"""

import json
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from convsearch.errors import DataError
from convsearch.files import Record, field, read_lines, write_jsonl
from convsearch.passage_forms import TITLE_NAME, WANTED, Columns, Parts, columns_of, parts_of
from convsearch.tables import is_table, read_table
from convsearch.texts import parse_json
from convsearch.types import Passage

T = TypeVar("T")
_SUSPECTS = 1_000_000
"""Ids that are compared at once where their hashes are equal."""


def parse_passage(record: Record, where: str) -> Passage:
    """One passage, in any of the known forms. A line that has our own names must have all three.

    Raises DataError for a missing field, a wrong type, or an id with white space.
    """
    if "doc_id" in record and "text" in record:
        field(record, TITLE_NAME, str, where)
    return _checked(parts_of(record, where), where)


def iter_passages(path: Path) -> Iterator[Passage]:
    """Streams a corpus in any of the known forms; see `unique_passages`."""
    return unique_passages(path, lambda: read_passages(path))


def read_passages(path: Path) -> Iterator[tuple[str, Passage]]:
    """(place, passage) of each, in any of the known forms. Raises DataError for a bad one."""
    if is_table(path):
        for where, parts in read_parts(path):
            yield where, _checked(parts, where)
        return
    for where, line in passage_lines(path):
        yield where, parse_passage(parse_json(line, where), where)


def passage_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of each passage, for those who parse lines elsewhere: as they stand in a file
    of JSON lines, and as JSON where it is a table. Raises DataError where it is neither."""
    if is_table(path):
        for where, parts in read_parts(path):
            yield where, json.dumps(vars(_checked(parts, where)), ensure_ascii=False)
        return
    for number, (where, line) in enumerate(read_lines(path)):
        if not number:
            _refuse_other_files(line, where)
        yield where, line


def read_parts(path: Path) -> Iterator[tuple[str, Parts]]:
    """(place, parts) of each passage, whose ids are not looked at. Raises DataError for a line that
    is no passage."""
    if not is_table(path):
        for where, line in passage_lines(path):
            yield where, parts_of(parse_json(line, where), where)
        return
    columns: Columns | None = None
    for number, (where, row) in enumerate(read_table(path)):
        if not number:
            columns = columns_of(row)
            if columns is not None:
                continue
            if _is_csv(path) or columns_of([*row, "text"]) is not None:
                found = ", ".join(row[:8])
                raise DataError(f"{where}: no header that names id and text ({found}); {WANTED}")
        yield where, _parts_of_row(row, columns, where)


def _is_csv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".csv")


def _parts_of_row(row: list[str], columns: Columns | None, where: str) -> Parts:
    if columns is None:
        if len(row) not in (2, 3):
            raise DataError(f"{where}: expected id, text and perhaps a title, by tabs")
        return Parts(row[0], row[2] if len(row) == 3 else "", row[1])
    if len(row) != columns.width:
        raise DataError(
            f"{where}: expected {columns.width} columns as in the header, found {len(row)}"
        )
    title = "" if columns.title is None else row[columns.title]
    return Parts(row[columns.doc_id], title, row[columns.text])


def _checked(parts: Parts, where: str) -> Passage:
    """Raises DataError for an id with white space, which TREC files cannot hold."""
    if parts.doc_id.split() != [parts.doc_id]:
        raise DataError(f"{where}: {parts.doc_id!r} is not an id without white space")
    return Passage(doc_id=parts.doc_id, title=parts.title, text=parts.text)


def _refuse_other_files(line: str, where: str) -> None:
    """Looks at the first line of what should be JSON lines."""
    begins = line.lstrip("\ufeff \t")[:1]
    if begins == "[":
        raise DataError(
            f"{where}: a JSON array, not one object a line; make lines of it with "
            "jq -c '.[]' FILE > FILE.jsonl"
        )
    if begins != "{":
        raise DataError(
            f"{where}: no JSON object, and no table by its name; name a table .csv or .tsv: "
            f"{WANTED}"
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
    """`refuse_repeats` of a corpus in any of the known forms."""
    refuse_repeats(
        lambda: ((where, passage.doc_id) for where, passage in read_passages(path)), suspects
    )


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
