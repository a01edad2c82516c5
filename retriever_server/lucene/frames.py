"""Texts as bytes, the Python side of `Frames.java`: length in four bytes, then UTF-8."""

import struct
from collections.abc import Iterable

_INT = struct.Struct(">i")
_FLOAT = struct.Struct(">f")


def pack(texts: Iterable[str]) -> bytes:
    """Lone halves of surrogate pairs, which UTF-8 cannot hold, become question marks."""
    encoded = (text.encode("utf-8", errors="replace") for text in texts)
    return b"".join(_INT.pack(len(text)) + text for text in encoded)


class FrameReader:
    """Reads values one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def number(self) -> int:
        """A whole number of four bytes."""
        self._at += _INT.size
        return int(_INT.unpack_from(self._data, self._at - _INT.size)[0])

    def real(self) -> float:
        """A number of single precision."""
        self._at += _FLOAT.size
        return float(_FLOAT.unpack_from(self._data, self._at - _FLOAT.size)[0])

    def text(self) -> str | None:
        """A text, None where Java had none."""
        length = self.number()
        if length < 0:
            return None
        self._at += length
        return self._data[self._at - length : self._at].decode("utf-8")


def unpack(data: bytes) -> list[str]:
    """All texts of a message that holds nothing else; what is none in Java is left out."""
    reader = FrameReader(data)
    found = []
    while reader.more():
        text = reader.text()
        if text is not None:
            found.append(text)
    return found
