"""What an engine says about itself, for health checks and logs."""

from dataclasses import dataclass


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
