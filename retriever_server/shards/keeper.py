"""Outlives the server by a moment to clear away its Ray instance, however the server ended.

    python3 keeper.py MARKER FOLDER

Waits until nobody holds the other end of its standard input. Then it ends every process whose
environment has the marker or that has a file of the folder open, and removes the folder; not the
server itself, whose Ray library keeps its log open after a shutdown. Ray ends most of its processes
with their parent, but not its agents. A script of its own, which imports nothing of this project.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import psutil

MARKER = "CONVSEARCH_SHARDS_ID"
"""Environment variable that all processes of one instance inherit."""
_GRACE_S = 1.0


def _left(marker: str, folder: str) -> list[psutil.Process]:
    """Ray's processes write their titles over their environment, which may swallow the marker;
    their logs in the folder stay open."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getppid():  # the server; another process once it is gone
                continue
            if f"{MARKER}={marker}".encode() in _environment(process) or any(
                Path(folder) in Path(file.path).parents for file in process.open_files()
            ):
                found.append(process)
    return found


def _environment(process: psutil.Process) -> bytes:
    """As bytes: psutil stops at the title that a process wrote over its beginning."""
    path = Path(f"/proc/{process.pid}/environ")
    if path.exists():
        return path.read_bytes()
    return "\0".join(f"{name}={value}" for name, value in process.environ().items()).encode()


def main(marker: str, folder: str) -> None:
    """See the module."""
    sys.stdin.buffer.read()
    psutil.wait_procs(_left(marker, folder), timeout=_GRACE_S)
    while left := _left(marker, folder):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_GRACE_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
