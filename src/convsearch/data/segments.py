"""`full_wiki_segments.tsv` of TopiOCQA: id, text and title of each passage, one header line.

The trap is the quotation mark. A file made by a csv writer doubles it and puts quotes around the
field; read as plain lines it keeps them in the text. A plain file has bare quotes; read by csv, a
passage that begins with one swallows the lines up to the next. A csv writer never leaves a bare
quote, so the beginning of the file tells which of the two it is.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from convsearch.data.corpus_job import RawPassage
from convsearch.errors import DataError, MissingFileError
from convsearch.tables import MAX_FIELD_CHARS, SAMPLE_LINES, Quoting, has_bare_quote
from convsearch.types import Passage

_COLUMNS = ["id", "text", "title"]


def read_segments(path: Path, quoting: Quoting = "auto") -> Iterator[RawPassage]:
    """Streams the passages. ` [SEP] ` between page and section in a title becomes a blank, as in
    the authors' own preprocessing.

    Raises MissingFileError, and DataError that names the line for a row without three columns.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    if quoting == "auto":
        quoting = guess_quoting(path)
    with path.open(encoding="utf-8-sig", newline="" if quoting == "csv" else "\n") as text:
        try:
            for where, row in _rows(text, path, quoting):
                if len(row) != len(_COLUMNS):
                    raise DataError(
                        f"{where}: expected 3 columns (id, text, title), found {len(row)}; if the "
                        "file is whole, it was read with the wrong quoting"
                    )
                doc_id, body, title = row
                if doc_id.split() != [doc_id]:
                    raise DataError(f"{where}: {doc_id!r} is not an id")
                parts = title.split(" [SEP] ")
                title = " ".join(parts).strip()
                yield RawPassage(
                    raw_id=doc_id,
                    passage=Passage(doc_id=doc_id, title=title, text=body),
                    where=where,
                    page=parts[0].strip(),
                )
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8; fetch it again") from None


def guess_quoting(path: Path) -> Quoting:
    """`none` where the first lines hold a quotation mark that a csv writer would not have left like
    that, else `csv`. Only lines of three columns are looked at: others may be parts of a field."""
    with path.open(encoding="utf-8-sig", newline="\n") as text:
        for line in islice(text, SAMPLE_LINES):
            row = line.rstrip("\r\n").split("\t")
            if len(row) == len(_COLUMNS) and has_bare_quote(row):
                return "none"
    return "csv"


def _rows(text: IO[str], path: Path, quoting: Quoting) -> Iterator[tuple[str, list[str]]]:
    """Yields (`file:line`, columns) of all rows but the header."""
    if quoting == "csv":
        csv.field_size_limit(MAX_FIELD_CHARS)
        reader = csv.reader(text, delimiter="\t", strict=True)
        try:
            for row in reader:
                if row and row != _COLUMNS:
                    yield f"{path}:{reader.line_num}", row
        except csv.Error as error:
            raise DataError(
                f"{path}:{reader.line_num}: not valid as csv ({error}); fetch the file again, or "
                "name its quoting"
            ) from None
    else:
        for number, line in enumerate(text, 1):
            row = line.rstrip("\r\n").split("\t")
            if row not in (_COLUMNS, [""]):
                yield f"{path}:{number}", row
