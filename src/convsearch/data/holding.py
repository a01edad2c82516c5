"""One process at a time in a folder that outlives a kill."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import ConfigError, ConvsearchError, DataError

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps other processes of this kind out until the block ends.

    Raises ConfigError where another process is in it, and DataError where it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, not a folder; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another process is at work here; wait for it") from None
        yield


@contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """A full disk, a missing permission and the like become one sentence. Raises DataError."""
    try:
        yield
    except ConvsearchError:
        raise
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: {error.strerror or error}; make room or name another "
            "folder, and run the same command again"
        ) from None
