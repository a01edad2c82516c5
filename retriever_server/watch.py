"""Whether the files of an index are still those that were opened.

What is searched is mapped into memory, so a byte that somebody writes into a file is searched at
once, and no hash that was compared before knows of it. Inode, size and time of change of each file
are compared with those at the start around every call of an engine: afterwards, so that no answer
from changed bytes leaves, and before, because reading behind the end of a file that became shorter,
or at an offset that was changed, ends the process (SIGBUS, SIGSEGV).

A file that was deleted, or replaced by another of its name, is no change: what is mapped is the old
one, which is still whole. A change that sets the time of change back is found by
`integrity.BackgroundCheck`, which reads the index again and again.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from convsearch.errors import DataError, EngineError

T = TypeVar("T")
FRESH_S = 0.002
"""So old a look is good enough before a call: where calls follow each other, the one after the
last. After a call there is always a new one."""
REMEDY = (
    'copy it again, or rebuild it with "convsearch index", and start the server again; an index '
    "that is served is replaced as a whole folder, never written into"
)
_NOT_SEARCHED = frozenset({"run.json", "write.lock", "lock"})
_log = logging.getLogger(__name__)


class IndexChangedError(EngineError):
    """An index was written into while it was searched: ranks from it may be wrong."""


class _Stamp(NamedTuple):
    """What tells a file that was written into."""

    inode: int
    device: int
    size: int
    changed_ns: int


def _stamp(path: str) -> _Stamp:
    found = os.stat(path)  # noqa: PTH116 - a path object would double the time of a look
    return _Stamp(found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns)


class IndexWatch:
    """Of the files behind each name, as they are when this is made: make it before they are opened.
    Safe for threads."""

    def __init__(self, folders: Mapping[str, Sequence[Path]]) -> None:
        """folders: all files in them are watched, at any depth; what does not exist is left to
        those who open it."""
        self._files = {name: _files_of(paths) for name, paths in folders.items()}
        self._looked = dict.fromkeys(folders, 0.0)
        self._damage: dict[str, str] = {}

    def settle(self) -> None:
        """Raises DataError where a file was changed or replaced while it was opened."""
        for files in self._files.values():
            for path, opened in files.items():
                try:
                    is_same = _stamp(path) == opened
                except OSError:
                    is_same = False
                if not is_same:
                    raise DataError(
                        f"{path}: was changed or replaced while the server opened it; start "
                        "it again once the index is complete"
                    )

    def damage(self, name: str) -> str | None:
        """Why this index must not answer as far as was seen; does not look."""
        return self._damage.get(name)

    def look(self, name: str) -> str | None:
        """Looks at the files. Why this index must not answer, now and for good, or None."""
        if (known := self._damage.get(name)) is not None:
            return known
        files = self._files.get(name, {})
        gone: list[str] = []
        for path, opened in files.items():
            try:
                now = _stamp(path)
            except FileNotFoundError:
                gone.append(path)
                continue
            except OSError as error:
                return self._refuse(name, f"{path}: cannot be looked at ({error})")
            if now == opened:
                continue
            if now[:2] != opened[:2]:
                gone.append(path)
                continue
            change = "" if now.size == opened.size else f" from {opened.size} to {now.size} bytes"
            return self._refuse(name, f"{path}: was changed{change} while it is served")
        if gone:
            self._files[name] = {path: files[path] for path in files if path not in gone}
            _log.warning(
                "index %r was deleted or replaced; the old one is served until the server ends",
                name,
            )
        self._looked[name] = time.monotonic()
        return None

    def guarded(self, name: str, work: Callable[[], T]) -> T:
        """What the work returns, which reads the index. Raises IndexChangedError where the index
        was changed before it or meanwhile, whatever else the work raises."""
        if time.monotonic() - self._looked.get(name, 0.0) > FRESH_S:
            self._check(name)
        try:
            return work()
        except IndexChangedError as error:  # of a shard, which looks at its own files
            self._refuse(name, str(error))
            raise
        finally:
            self._check(name)

    def _check(self, name: str) -> None:
        if (reason := self.look(name)) is not None:
            raise IndexChangedError(reason)

    def _refuse(self, name: str, reason: str) -> str:
        if name not in self._damage:
            self._damage[name] = reason if REMEDY in reason else f"{reason}; {REMEDY}"
            _log.error("index %r is refused from now on: %s", name, reason)
        return self._damage[name]


def _files_of(folders: Sequence[Path]) -> dict[str, _Stamp]:
    paths = sorted({path for folder in folders for path in folder.rglob("*")})
    return {
        str(path): _stamp(str(path))
        for path in paths
        if path.is_file() and path.name not in _NOT_SEARCHED and not path.name.startswith(".")
    }
