"""How much of a machine the connections of one service may take, and for how long."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

MOST_FILES = 65_536
"""Open files that are asked of the system where it sets no limit."""
OWN_FILES = 128
"""Files that a service may open beside its connections: indexes, logs, its own clients."""
ACCEPTED_AT_ONCE = 32
"""Connections taken from the system between two looks at those that are there."""
_ON_THE_WAY = 4 * ACCEPTED_AT_ONCE
"""Connections that are taken already and not counted yet, or dropped and not closed yet."""
_FEWEST = 16


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Beyond these a connection is closed."""

    max_connections: int = 4096
    """Open at once. One more takes the place of the one that has been idle longest; where all are
    being answered it gets 503."""
    max_head_bytes: int = 64 * 1024
    """Request line and headers together; more is 431. The trailer of a body counts alike."""
    max_headers: int = 100
    """Headers of one request; more is 431."""
    head_s: float = 10.0
    """Until the head of a request is complete, from the first byte of the connection or of the
    request."""
    rest_s: float = 5.0
    """For a body that goes on after the answer; what comes is thrown away."""
    unread_s: float = 60.0
    """Without a byte that the client took of an answer that waits for it."""


def raise_file_limit() -> int:
    """Raises the limit of open files to what the system allows this process; returns it."""
    if sys.platform == "win32":
        return MOST_FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def room_for_connections(wanted: int, file_limit: int) -> int:
    """How many of the wanted connections fit beside the files that this process has open and may
    still open; sixteen at least."""
    return max(_FEWEST, min(wanted, file_limit - _open_files() - OWN_FILES - _ON_THE_WAY))


def _open_files() -> int:
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        with contextlib.suppress(OSError):
            return sum(1 for _ in folder.iterdir())
    return OWN_FILES
