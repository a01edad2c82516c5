"""What passages look like in files of other programs, and how each becomes id, title and text.

| whose | form |
| --- | --- |
| ours | `{"doc_id", "title", "text"}`; in hand-written files `{"id", "title", "text"}` |
| Pyserini, Search-R1, FlashRAG | `{"id", "contents"}`; contents = title, a line break, text |
| BEIR | `{"_id", "title", "text"}` |
| DPR | a table of `id`, `text`, `title` |

The title in `contents` may stand in quotation marks. Numbers are taken as ids by their digits.
"""

from collections.abc import Sequence
from typing import NamedTuple

from convsearch.errors import DataError
from convsearch.files import Record, field

ID_NAMES = ("doc_id", "id", "_id", "docid", "pid", "passage_id")
TITLE_NAME = "title"
TEXT_NAMES = ("text", "contents", "content", "passage", "body")
WANTED = (
    'a passage is {"id", "title", "text"}, {"id", "contents"} or {"_id", "title", "text"} a line, '
    "or a row of a .csv or .tsv with these columns (docs/own-data.md)"
)
_SHOWN = 8


class Parts(NamedTuple):
    """A passage as its file has it."""

    doc_id: str
    """Not looked at: it may hold white space."""
    title: str
    text: str


class Columns(NamedTuple):
    """Where a table holds what; `title` is None where it has none."""

    doc_id: int
    title: int | None
    text: int
    width: int


def parts_of(record: Record, where: str) -> Parts:
    """Reads any of the forms. Raises DataError that says what is missing and what was found."""
    text_name = _name_in(record, TEXT_NAMES)
    id_name = _name_in(record, ID_NAMES)
    for name, found in ((ID_NAMES[0], id_name), (TEXT_NAMES[0], text_name)):
        if found is None:
            raise DataError(f'{where}: field "{name}" is missing{found_in(record)}; {WANTED}')
    assert id_name is not None
    assert text_name is not None
    doc_id = id_of(record[id_name], f'{where}: field "{id_name}"')
    title = "" if record.get(TITLE_NAME) is None else field(record, TITLE_NAME, str, where)
    if not isinstance(record[text_name], str):
        kind = type(record[text_name]).__name__
        raise DataError(f'{where}: field "{text_name}" must be str, found {kind}; {WANTED}')
    text = str(record[text_name])
    if text_name == "contents":
        own_title, text = title_and_text(text)
        title = title or own_title
    return Parts(doc_id, title, text)


def columns_of(header: Sequence[str]) -> Columns | None:
    """The columns by their names; None where the first row is no header of passages."""
    names = [cell.strip().lower() for cell in header]
    doc_id = next((names.index(name) for name in ID_NAMES if name in names), None)
    text = next((names.index(name) for name in TEXT_NAMES if name in names), None)
    if doc_id is None or text is None:
        return None
    title = names.index(TITLE_NAME) if TITLE_NAME in names else None
    return Columns(doc_id, title, text, len(names))


def title_and_text(contents: str) -> tuple[str, str]:
    """The two parts of `contents`. The title loses the quotation marks around it, and doubled ones
    in it become single; without a line break all is text."""
    title, line_break, text = contents.partition("\n")
    if not line_break:
        return "", contents.strip()
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1].replace('""', '"')
    return title.strip(), text.strip()


def id_of(value: object, what: str) -> str:
    """An id as text: numbers by their digits (12 and 12.0 are "12"). Raises DataError for anything
    else, which `what` names."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{what} must be a text or a whole number, found {_kind(value)}")
    return value


def found_in(record: Record) -> str:
    """The names of the fields there are, as the end of a sentence."""
    names = [f'"{name}"' for name in record]
    more = ", ..." if len(names) > _SHOWN else ""
    return f" (found: {', '.join(names[:_SHOWN])}{more})" if names else " (found none)"


def _name_in(record: Record, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _kind(value: object) -> str:
    words = {bool: "true or false", float: "a decimal", list: "a list", dict: "an object"}
    return "null" if value is None else words.get(type(value), type(value).__name__)
