"""Reads what is served in the background and compares every byte with its hash.

Opening an index samples its files, so that it takes the same time for every size; a single flipped
bit would be found by `--verify` only. A thread of low priority finds it minutes later, and from
then on the index is refused: an infrastructure failure, not a rank. The server reads again and
again, for what goes bad on the disk later, or is written with the time of change set back.
"""

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from convsearch.errors import ConvsearchError
from retriever_server.cores import give_way
from retriever_server.manifest import REMEDY, written_hashes

_log = logging.getLogger(__name__)
CHUNK_BYTES = 16 * 1024**2
READ_AGAIN_S = 600.0
"""Rest between two readings; twenty times as long as the last took where that is more."""
_REST_FACTOR = 20
PACE = 1.0
"""Seconds of rest for each second of reading, so that searches get at least half of the disk."""


class BackgroundCheck:
    """Of the index folders behind each name. `start` and `stop` may be called from any thread."""

    def __init__(
        self,
        folders: Mapping[str, Sequence[Path]],
        *,
        pace: float = PACE,
        again_s: float | None = None,
        is_read: bool = False,
    ) -> None:
        """again_s: rest before the next reading; None reads once. is_read: somebody has just read
        it, so it begins with the rest."""
        self._folders, self._pace, self._again_s = folders, pace, again_s
        self._is_read = is_read
        self._damage: dict[str, str] = {}
        self._checked: dict[str, float] = {} if is_read else dict.fromkeys(folders, 0.0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="integrity", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it within a chunk."""
        self._stopping.set()

    def damage(self, name: str) -> str | None:
        """Why an index must not answer, or None for all that is known."""
        return self._damage.get(name)

    @property
    def checked(self) -> dict[str, float]:
        """Share of the bytes of each that were compared so far."""
        return dict(self._checked)

    def _run(self) -> None:
        give_way()
        with contextlib.suppress(psutil.Error, AttributeError, OSError):  # Linux alone knows it
            psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)
        took_s = 0.0
        while not self._stopping.is_set():
            if not self._is_read:
                begun = time.monotonic()
                self._read_all()
                took_s = time.monotonic() - begun
            self._is_read = False
            if self._again_s is None:
                return
            self._stopping.wait(max(self._again_s, _REST_FACTOR * took_s))

    def _read_all(self) -> None:
        for name, folders in self._folders.items():
            try:
                self._check(name, folders)
            except (ConvsearchError, OSError) as error:
                self._refuse(name, str(error))
            if self._stopping.is_set():
                return

    def _check(self, name: str, folders: Sequence[Path]) -> None:
        written = _written(folders)
        if damaged := self._first_damage(name, written):
            if _written(folders) != written:
                _log.warning("index %r was replaced while it was read through", name)
            else:
                self._refuse(name, f"{damaged}; {REMEDY}")
        elif not self._stopping.is_set():
            self._read_share(name, 1.0)

    def _first_damage(self, name: str, written: Mapping[Path, str]) -> str | None:
        """What is wrong with a file, in words."""
        missing = next((path for path in written if not path.is_file()), None)
        if missing is not None:
            return f"{missing}: is missing"
        total, done = sum(path.stat().st_size for path in written), 0
        for path, expected in written.items():
            digest = hashlib.sha256()
            for chunk in self._chunks(path):
                digest.update(chunk)
                done += len(chunk)
                self._read_share(name, done / total)
            if self._stopping.is_set():
                return None
            if digest.hexdigest() != expected:
                return f"{path}: its content is not what was written"
        return None

    def _chunks(self, path: Path) -> Iterator[bytes]:
        """What is read leaves the page cache where no search has mapped it."""
        with path.open("rb", buffering=0) as file:
            while not self._stopping.is_set():
                start = time.monotonic()
                chunk = file.read(CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk
                if hasattr(os, "posix_fadvise"):
                    first = file.tell() - len(chunk)
                    os.posix_fadvise(file.fileno(), first, len(chunk), os.POSIX_FADV_DONTNEED)
                self._stopping.wait(self._pace * (time.monotonic() - start))

    def _read_share(self, name: str, share: float) -> None:
        if name in self._checked:  # a later reading takes nothing back
            self._checked[name] = max(share, self._checked[name])

    def _refuse(self, name: str, reason: str) -> None:
        self._damage[name] = reason
        _log.error(
            "index %r is refused from now on, and ranks since the start may be wrong: %s",
            name, reason,
        )  # fmt: skip


def _written(folders: Sequence[Path]) -> dict[Path, str]:
    return {path: digest for f in folders for path, digest in written_hashes(f).items()}
