"""The address of an OpenAI-compatible endpoint, in any of the forms that people have it in."""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx

from convsearch.errors import ConfigError

_END = "/chat/completions"
_USER = re.compile(r"://[^/?#]*@")
"""Name and password in an address, also in one that cannot be taken apart."""
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?", re.IGNORECASE)
"""A part of a path behind which no `/v1` belongs: `v1`, `v4`, `v1beta`."""


class ChatAddress(NamedTuple):
    """Where chats are sent."""

    url: str
    """The whole address."""
    shown: str
    """The same without a name and a password in it, for messages and passports."""


def chat_address(text: str) -> ChatAddress:
    """Reads an address with or without `/v1` and `/chat/completions`; what ends in the latter is
    taken as it is. A query (`?api-version=1`) stays behind it. Raises ConfigError.
    """
    try:
        parts = urlsplit(text.strip())
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
        path = parts.path.rstrip("/")
        if not path.endswith(_END):
            versioned = any(_VERSION.fullmatch(part) for part in path.split("/"))
            path += _END if versioned else f"/v1{_END}"
        url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        httpx.URL(url)
    except (httpx.InvalidURL, ValueError):  # UnicodeError is one
        is_whole, url, parts = False, "", urlsplit("")
    if not is_whole:
        raise ConfigError(
            f"engine URL {_USER.sub('://', text)!r} is no address; it must begin "
            "with http:// or https:// and name a host, as http://127.0.0.1:8000/v1 does"
        )
    return ChatAddress(url=url, shown=_without_password(urlsplit(url)))


def _without_password(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
