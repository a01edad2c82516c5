"""Answers of retrieval servers on disk, addressed by everything they depend on.

One SQLite file, values as JSON: nothing in it can run when it is read, and several processes may
share it. An answer of one index is never found under the fingerprint of another.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from convsearch.errors import DataError, MissingFileError
from convsearch.files import atomic_write

Key = tuple[object, ...]

_BUSY_S = 30.0
"""How long to wait for another process that writes."""
_LOOKUPS = 500
"""Keys of one statement: below SQLite's limit of 999 parameters in older builds."""
_APPLICATION_ID = 0x636F6E76  # "conv", marks the file as ours
_SCHEMA = "CREATE TABLE IF NOT EXISTS answers (digest TEXT PRIMARY KEY, key TEXT, answer TEXT)"


class AnswerCache:
    """Safe for threads and processes. Close it, or use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        """Opens the file or makes it. Raises DataError where the file is something else."""
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _open(self) -> None:
        self._pid = os.getpid()
        self._db = sqlite3.connect(
            self._path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None
        )
        [owner] = self._db.execute("PRAGMA application_id").fetchone()
        tables = self._db.execute("SELECT name FROM sqlite_master").fetchall()
        if owner != _APPLICATION_ID and tables:
            self._db.close()
            raise sqlite3.DatabaseError("a database of another program")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        self._db.execute(_SCHEMA)

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        [[count]] = self._execute("SELECT COUNT(*) FROM answers", ())
        return int(count)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def get(self, keys: Sequence[Key]) -> dict[int, object]:
        """What is known: position in `keys` -> answer. Raises DataError for a broken file."""
        digests = [_digest(key) for key in keys]
        found: dict[str, str] = {}
        for start in range(0, len(digests), _LOOKUPS):
            part = digests[start : start + _LOOKUPS]
            marks = ",".join("?" * len(part))
            query = f"SELECT digest, answer FROM answers WHERE digest IN ({marks})"
            found.update((digest, answer) for digest, answer in self._execute(query, part))
        try:
            return {i: json.loads(found[d]) for i, d in enumerate(digests) if d in found}
        except ValueError as error:
            raise self._unusable(error) from None

    def put(self, answers: Mapping[Key, object]) -> None:
        """Keeps answers, which must be JSON values. Raises DataError where that fails."""
        rows = [(_digest(key), _text(key), _text(answer)) for key, answer in answers.items()]
        self._insert(rows)

    def export(self, path: Path) -> int:
        """Writes everything as lines of JSON with `key` and `answer`; returns their number."""
        rows = self._execute("SELECT key, answer FROM answers ORDER BY digest", ())
        with atomic_write(path) as out:
            for key, answer in rows:
                out.write(f'{{"key": {key}, "answer": {answer}}}\n')
        return len(rows)

    def load(self, path: Path) -> int:
        """Takes in what `export` wrote, also of another machine; returns the number of lines.

        Raises MissingFileError, or DataError with the line that is none of ours; then nothing is
        taken in.
        """
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file; AnswerCache.export writes one")
        rows = []
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    key, answer = tuple(record["key"]), record["answer"]
                    rows.append((_digest(key), _text(key), _text(answer)))
                except (ValueError, KeyError, TypeError):
                    raise DataError(
                        f'{path}:{number}: not a line of AnswerCache.export ("key", "answer")'
                    ) from None
        self._insert(rows)
        return len(rows)

    def _insert(self, rows: Sequence[tuple[str, str, str]]) -> None:
        with self._lock:
            try:
                self._after_fork()
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise self._unusable(error) from None

    def _execute(self, statement: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        with self._lock:
            try:
                self._after_fork()
                with closing(self._db.execute(statement, values)) as cursor:
                    return cursor.fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from None

    def _after_fork(self) -> None:
        """A connection must not be used in a forked child; the child opens its own."""
        if self._pid != os.getpid():
            self._open()

    def _unusable(self, error: sqlite3.Error | ValueError) -> DataError:
        return DataError(
            f"{self._path}: not a usable cache of retrieval answers ({error}); remove it or name "
            "another file"
        )


def _text(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _digest(key: Key) -> str:
    return hashlib.sha256(_text(key).encode()).hexdigest()
