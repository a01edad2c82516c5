"""Text that comes in from outside: bytes to lines, a line to JSON. Every reader goes through here.

A byte order mark is dropped, at the beginning of a file and of each line (files that were joined
bring one into the middle). Half of a surrogate pair, which JSON can spell and UTF-8 cannot hold,
becomes "?", as in the queries of `/retrieve`. What cannot be read is a DataError that names file
and line.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from convsearch.errors import DataError, MissingFileError

Record = dict[str, object]

BOM = "\ufeff"
_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
"""What a text of JSON must spell for a value to hold half of a surrogate pair."""
_SHOWN_CHARS = 60
_MEND = "mend the line"


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (`file:line`, line), empty ones left out; through gzip where the name ends in `.gz`.

    Lines end in LF, CRLF or CR, the last one perhaps in none. Raises MissingFileError, and
    DataError for bytes that are no text in UTF-8.
    """
    number = 0
    try:
        with _open_text(path) as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}:{number}"
                text = _checked(line, where)
                if text.strip():
                    yield where, text
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(
            f"{path}: not a whole gzip file (after line {number}); copy or make it again"
        ) from None


def read_jsonl(path: Path, *, allow_nan: bool = False) -> Iterator[tuple[str, Record]]:
    """Yields (`file:line`, object). Raises as `read_lines` and `parse_json` do.

    allow_nan: takes NaN and Infinity, as trainers log them.
    """
    decoder = _NAN_DECODER if allow_nan else _DECODER
    for where, line in read_lines(path):
        yield where, _object(_value(line, where, _MEND, decoder), where, _MEND)


def read_text(path: Path) -> str:
    """The whole of a small file. Raises as `read_lines` does."""
    try:
        with _open_text(path) as stream:
            return _checked(stream.read(), str(path))
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path}: not a whole gzip file; copy or make it again") from None


def read_json(path: Path, remedy: str = "mend the file") -> object:
    """The value in a file that is one JSON text. Raises as `read_lines` does, and DataError where
    it is no JSON."""
    return _value(read_text(path), str(path), remedy, _DECODER, name_line=True)


def read_json_object(path: Path, remedy: str = "mend the file") -> Record:
    """`read_json`, which must be an object. Raises DataError where it is none."""
    return _object(read_json(path, remedy), str(path), remedy)


def parse_json(line: str | bytes, where: str, remedy: str = _MEND) -> Record:
    """One line of a `.jsonl` file. Raises DataError where it is no JSON object."""
    return _object(json_value(line, where, remedy), where, remedy)


def json_value(
    text: str | bytes, where: str, remedy: str = _MEND, *, allow_nan: bool = False
) -> object:
    """The value of a JSON text. Raises DataError, ending in the remedy, where it is none.

    Refused is also what only Python's parser takes or is overrun by: NaN and Infinity, a key that
    an object gives two values, a number of thousands of digits, nesting of thousands of levels.
    allow_nan: takes NaN and Infinity, as some servers write them.
    """
    return _value(text, where, remedy, _NAN_DECODER if allow_nan else _DECODER)


def _value(
    text: str | bytes,
    where: str,
    remedy: str,
    decoder: json.JSONDecoder,
    *,
    name_line: bool = False,
) -> object:
    if isinstance(text, bytes):
        text = decoded(text, where)
    try:
        value = decoder.decode(text.removeprefix(BOM))
        return whole_characters(value) if _HALF_ESCAPED.search(text) else value
    except (ValueError, RecursionError) as error:
        if name_line and isinstance(error, json.JSONDecodeError):
            where = f"{where}:{error.lineno}"
        raise DataError(f"{where}: not valid JSON ({refusal(error)}); {remedy}") from None


def json_decoder() -> json.JSONDecoder:
    """The decoder of `json_value`, for texts of which the end is not known; what it raises is
    named by `refusal`, and what it gives goes through `whole_characters`."""
    return _DECODER


def refusal(error: ValueError | RecursionError) -> str:
    """Why a JSON text could not be read, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if "int_max_str_digits" in str(error):
        return "a number of too many digits"
    return str(error)


def whole_characters(value: object) -> object:
    """The same value, in every text and key of it "?" for each half of a surrogate pair."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, list):
        return [whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(item) for key, item in value.items()}
    return value


def mended(text: str) -> str:
    """The text with "?" for each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def decoded(line: bytes, where: str) -> str:
    """A line of bytes as text. Raises DataError where it is no text in UTF-8."""
    return _checked(line.decode("utf-8", "surrogateescape"), where)


def _open_text(path: Path) -> IO[str]:
    """Bytes that are no UTF-8 come as surrogates, so that the line they stand in can be named."""
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; check the path or run the stage that makes it"
        )
    zipped = path.suffix == ".gz"
    with gzip.open(path, "rb") if zipped else path.open("rb") as raw:
        head = raw.read(2)
    if head in _UTF_16:
        raise DataError(
            f"{path}: not text in UTF-8 but in UTF-16; save it in UTF-8 (iconv -f UTF-16 -t UTF-8)"
        )
    if head == _GZIP:
        raise DataError(f"{path}: is a gzip file; give it a name that ends in .gz")
    opened = gzip.open if zipped else open
    return opened(path, "rt", encoding="utf-8", errors="surrogateescape")


def _checked(text: str, where: str) -> str:
    if "\0" in text:
        raise DataError(
            f"{where}: holds a zero byte, which no text does (UTF-16, or damaged); save it in "
            "UTF-8, or copy or make it again"
        )
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = ord(text[error.start]) - 0xDC00
        near = text[max(0, error.start - _SHOWN_CHARS) : error.start].rpartition("\n")[2]
        raise DataError(
            f"{where}: not text in UTF-8 (byte 0x{found:02x} after {near!r}); save it in UTF-8, or "
            "copy or make it again"
        ) from None
    return text.removeprefix(BOM)


def _object(value: object, where: str, remedy: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}; {remedy}")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no value of JSON")


def _unlike(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        for key, value in pairs:
            if record[key] != value:
                raise ValueError(f"the key {key!r} occurs twice, with two values")
    return record


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unlike)
_NAN_DECODER = json.JSONDecoder(object_pairs_hook=_unlike)
