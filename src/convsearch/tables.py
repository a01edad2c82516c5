"""Tables as text: `.csv` and `.tsv` (also gzipped), a row at a time with its place.

The trap is the quotation mark. A file made by a csv writer puts quotes around a field that holds
one, and doubles it; a plain file has bare quotes. A csv writer never leaves a bare quote, so the
beginning of a `.tsv` tells which of the two it is. A `.csv` is always read as csv.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from convsearch.errors import DataError
from convsearch.texts import read_lines

Quoting = Literal["auto", "csv", "none"]
"""`csv`: quoted as csv writers do. `none`: no quoting. `auto`: what the file itself shows."""
SAMPLE_LINES = 100_000
"""Lines that `auto` looks at: enough for thousands of quotation marks in an encyclopaedia."""
MAX_FIELD_CHARS = 2**24
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def is_table(path: Path) -> bool:
    """Whether the name says `.csv` or `.tsv`, gzipped or not."""
    return _kind(path) in (".csv", ".tsv")


def read_table(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields (`file:line` where the row begins, cells). A `.csv` may be parted by comma, semicolon
    or tab: what its first line holds most of. Blank lines are left out.

    Raises MissingFileError, and DataError for damaged bytes or quotes that no csv writer makes.
    """
    delimiter = "\t" if _kind(path) == ".tsv" else _delimiter(path)
    if _kind(path) == ".tsv" and guess_quoting(path) == "none":
        for where, line in read_lines(path):
            yield where, line.rstrip("\r\n").split("\t")
        return
    begins = ""

    def lines() -> Iterator[str]:
        nonlocal begins
        for where, line in read_lines(path):
            begins = begins or where
            yield line

    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield begins, row
            begins = ""
    except csv.Error as error:
        raise DataError(
            f"{begins or path}: not valid as csv ({error}); put quotes around the whole field and "
            "double those inside it"
        ) from None


def guess_quoting(path: Path) -> Quoting:
    """`none` where the first lines hold a quotation mark that a csv writer would not have left like
    that, else `csv`. Only lines of as many cells as the first are looked at: others may be parts
    of a field."""
    columns = 0
    try:
        for _, line in islice(read_lines(path), SAMPLE_LINES):
            row = line.rstrip("\r\n").split("\t")
            columns = columns or len(row)
            if len(row) == columns and has_bare_quote(row):
                return "none"
    except DataError:
        return "none"  # damaged: the reading itself says where
    return "csv"


def has_bare_quote(row: Sequence[str]) -> bool:
    """Whether one of the cells between tabs holds a quotation mark as no csv writer leaves it. A
    last cell that begins with one may go on in the next line."""
    return any(
        '"' in cell
        and not _QUOTED.fullmatch(cell)
        and not (cell.startswith('"') and number == len(row))
        for number, cell in enumerate(row, 1)
    )


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _delimiter(path: Path) -> str:
    first = next((line for _, line in read_lines(path)), "")
    return max(",;\t", key=first.count)
