"""Paragraphs of TREC CAR (`*.cbor`), streamed. As much of CBOR (RFC 8949) as these files use.

A file is a header `["CAR", [type, ...], ...]` and one array of open length of paragraphs
`[0, id, bodies]`; a body is `[0, text]` or a link `[1, [?, page, section, page id, anchor text]]`.
The text of a paragraph is its texts and anchor texts, joined.
"""

from collections.abc import Iterator
from typing import IO

_OPEN_ARRAY = b"\x9f"
_BREAK = b"\xff"
_OPEN_LENGTH = -1
MAX_TEXT_BYTES = 2**26
"""A length is believed before its bytes have come; no paragraph is so long."""


class CborError(ValueError):
    """The bytes are not what the format says; the message tells where."""


def read_paragraphs(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yields (paragraph id, text). Raises CborError, also where the stream ends too early."""
    header = _item(stream)
    if not isinstance(header, list) or not header or header[0] != "CAR":
        raise CborError("not a TREC CAR file: its header is missing")
    if _take(stream, 1) != _OPEN_ARRAY:
        raise CborError("no array of paragraphs after the header")
    number = 0
    while (first := _take(stream, 1)) != _BREAK:
        number += 1
        yield _paragraph(_item(stream, first), number)


def _paragraph(item: object, number: int) -> tuple[str, str]:
    try:
        tag, raw_id, bodies = item  # pyright: ignore[reportGeneralTypeIssues] - checked below
        if tag != 0:
            raise CborError(f"entry {number} is not a paragraph")
        texts = [body[1] if body[0] == 0 else body[1][4] for body in bodies]
        return raw_id.decode("ascii"), "".join(texts)
    except (TypeError, ValueError, IndexError, AttributeError):
        raise CborError(f"paragraph {number} has another form than TREC CAR v2.0") from None


def _item(stream: IO[bytes], first: bytes | None = None) -> object:
    """One value of any kind."""
    head = (first or _take(stream, 1))[0]
    kind, info = head >> 5, head & 31
    if kind == 7:
        return _simple(info)
    length = _length(stream, info)
    if kind == 0:
        return length
    if kind == 1:
        return -1 - length
    if kind == 2:
        return _bytes(stream, length)
    if kind == 3:
        try:
            return _bytes(stream, length).decode("utf-8")
        except UnicodeDecodeError:
            raise CborError("a text is not UTF-8") from None
    if kind == 4:
        if length == _OPEN_LENGTH:
            return list(_until_break(stream))
        return [_item(stream) for _ in range(length)]
    if kind == 5:
        raise CborError("holds a map, which TREC CAR v2.0 does not")
    return _item(stream)  # a tag: its number says nothing that is needed here


def _until_break(stream: IO[bytes]) -> Iterator[object]:
    while (first := _take(stream, 1)) != _BREAK:
        yield _item(stream, first)


def _bytes(stream: IO[bytes], length: int) -> bytes:
    if length != _OPEN_LENGTH:
        return _take(stream, length)
    parts = []
    while (first := _take(stream, 1)) != _BREAK:
        part = _item(stream, first)
        parts.append(part.encode() if isinstance(part, str) else part)
    return b"".join(part for part in parts if isinstance(part, bytes))


def _length(stream: IO[bytes], info: int) -> int:
    if info < 24:
        return info
    if info == 31:
        return _OPEN_LENGTH
    if info > 27:
        raise CborError("holds a length of unknown form")
    return int.from_bytes(_take(stream, 2 ** (info - 24)), "big")


def _simple(info: int) -> object:
    values = {20: False, 21: True, 22: None, 23: None}
    if info not in values:
        raise CborError("holds a value that TREC CAR v2.0 does not have")
    return values[info]


def _take(stream: IO[bytes], size: int) -> bytes:
    if size > MAX_TEXT_BYTES:
        raise CborError(f"holds a text of {size} bytes")
    block = stream.read(size)
    if len(block) < size:
        raise CborError("ends too early")
    return block
