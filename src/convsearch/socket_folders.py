"""Folders that hold Ray's sockets: of this user alone, and with a path that sockets can have."""

import os
import tempfile
from pathlib import Path

from convsearch.errors import WriteError

LONGEST_ROOT = 23
"""Bytes in the path of the folder for temporary files. A socket's path may have 107 (macOS: 103),
and the names of ours, of Ray's session and of its socket take 80 of them."""
SHORT_ROOTS = ("/tmp", "/var/tmp")
"""Taken in turn where the user's folder for temporary files has a longer path."""


def socket_root() -> Path:
    """The user's folder for temporary files (TMPDIR) where its path is short enough, else a usual
    one. Raises WriteError where no such folder takes files."""
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise WriteError(
            f"no folder for temporary files takes any ({error.strerror}); free one of them, or "
            "name one that can be written in TMPDIR"
        ) from None
    for root in (usual, *SHORT_ROOTS):
        if len(os.fsencode(root)) <= LONGEST_ROOT and os.access(root, os.W_OK | os.X_OK):
            return Path(root)
    raise WriteError(
        f"{usual}: the path is too long for Ray's sockets, which may have {LONGEST_ROOT} bytes "
        f"there, and none of {', '.join(SHORT_ROOTS)} can be written; name a folder with a short "
        "path in TMPDIR"
    )


def make_socket_folder(prefix: str) -> Path:
    """A new folder with mode 700 in `socket_root`. Raises WriteError."""
    root = socket_root()
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    except OSError as error:
        raise WriteError(
            f"{root}: no folder can be made there ({error.strerror}); make room, or name another "
            "folder in TMPDIR"
        ) from None
