"""What an engine says about itself, for health checks and logs."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """Which passages are searched, and how."""

    engine: str
    """`bm25`, `lucene`, `dense`, `memory`."""
    num_passages: int
    fingerprint: str
    """Equal exactly where passages and settings are equal."""


def info_of(retriever: object) -> IndexInfo | None:
    """The engine's own `info`, or None for an engine that has none (the protocol asks for none)."""
    info = getattr(retriever, "info", None)
    return info if isinstance(info, IndexInfo) else None


def index_name(address: str) -> str | None:
    """The name of an index, from its folder or the address of its server: nothing that tells where
    it lies. None where a server's address names none."""
    if address.startswith(("http://", "https://")):
        return parse_qs(urlsplit(address).query).get("index", [None])[0]
    return Path(address).resolve().name or None
