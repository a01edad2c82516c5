"""`passages.zip` of QReCC, read as it is: JSON lines of `id`, `contents` in three folders.

The order is commoncrawl, wayback, wayback-backfill, within each that of the archive; a passage's
number in it, from 0, is its id here. Raw ids are addresses of web pages: long, and not unique.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from convsearch.data.archives import archive_errors, bounded_lines
from convsearch.data.corpus_job import RawPassage
from convsearch.errors import DataError, MissingFileError
from convsearch.files import field
from convsearch.texts import parse_json
from convsearch.types import Passage

_BUFFER_BYTES = 2**20
FOLDERS = ("commoncrawl", "wayback", "wayback-backfill")


def read_passages_zip(path: Path) -> Iterator[RawPassage]:
    """Streams all passages. Raises MissingFileError, and DataError for an archive that is damaged
    or lacks a folder, and for a bad line (named by member and line)."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    number = 0
    with archive_errors(path), zipfile.ZipFile(path) as archive:
        for name in _members(archive, path):
            # the stream's own reading of lines within a bound is slow, and stops short of it
            with io.BufferedReader(archive.open(name), _BUFFER_BYTES) as stream:  # pyright: ignore
                for line_number, line in enumerate(bounded_lines(stream, f"{path}: {name}"), 1):
                    if line.strip():
                        yield _passage(line, number, f"{path}: {name}:{line_number}")
                        number += 1


def _members(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Files of passages, folder by folder. A file belongs to the folder it lies in, and to no
    other whose name its own begins with."""
    by_folder: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
    for name in archive.namelist():
        member = PurePosixPath(name)
        if member.suffix == ".jsonl" and member.parent.name in by_folder:
            by_folder[member.parent.name].append(name)
    empty = [folder for folder, names in by_folder.items() if not names]
    if empty:
        raise DataError(
            f"{path}: no .jsonl files in the folder {' or '.join(empty)}; fetch the archive again"
        )
    return [name for folder in FOLDERS for name in by_folder[folder]]


def _passage(line: bytes, number: int, where: str) -> RawPassage:
    record = parse_json(line, where, "fetch the archive again")
    text = field(record, "contents", str, where)
    return RawPassage(
        raw_id=field(record, "id", str, where),
        passage=Passage(doc_id=str(number), title="", text=text),
        where=where,
    )
