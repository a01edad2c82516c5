"""Large JSON files that are one array, an entry at a time."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from convsearch.errors import DataError, MissingFileError
from convsearch.files import Record

BLOCK_CHARS = 2**20
_GAP = re.compile(r"[\s,\ufeff]*")


def read_json_array(path: Path) -> Iterator[tuple[str, Record]]:
    """Yields (`file: entry n`, object). Memory holds a block of the file, and an entry.

    Raises MissingFileError, and DataError where the file is no array of objects, is damaged, ends
    too early or goes on after its end.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    with path.open(encoding="utf-8") as text:
        try:
            yield from _entries(text, path)
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8; fetch it again") from None


def _entries(text: IO[str], path: Path) -> Iterator[tuple[str, Record]]:
    decoder = json.JSONDecoder()
    number, buffer = 0, text.read(BLOCK_CHARS)
    while (at := _skip(buffer, 0)) == len(buffer) and (block := text.read(BLOCK_CHARS)):
        buffer += block
    if buffer[at : at + 1] != "[":
        raise DataError(f"{path}: not a JSON array; fetch it again")
    at += 1
    while True:
        at = _skip(buffer, at)
        if at < len(buffer) and buffer[at] == "]":
            if buffer[at + 1 :].strip() or text.read(BLOCK_CHARS).strip():
                raise DataError(f"{path}: goes on after its end; fetch it again")
            return
        try:
            value, at = decoder.raw_decode(buffer, at)
        except json.JSONDecodeError:
            block = text.read(max(BLOCK_CHARS, len(buffer) - at))
            if not block:
                raise DataError(
                    f"{path}: damaged, or cut off, after entry {number}; fetch it again"
                ) from None
            buffer, at = buffer[at:] + block, 0
            continue
        except (ValueError, RecursionError) as error:  # digits by thousands; deep nesting
            raise DataError(f"{path}: entry {number + 1} is not read ({error})") from None
        number += 1
        if not isinstance(value, dict):
            raise DataError(f"{path}: entry {number} is not an object; fetch it again")
        yield f"{path}: entry {number}", value


def _skip(buffer: str, at: int) -> int:
    """Position after blanks and commas."""
    match = _GAP.match(buffer, at)
    return match.end() if match else at
