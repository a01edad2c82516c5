"""The append-only file of a run in progress: what a killed run leaves and the next one takes up."""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from convsearch.errors import ConfigError, ConvsearchError, DataError, WriteError
from convsearch.files import parse_rewrite_record, stem_of
from convsearch.made import Output, refuse_other, refuse_passport_name
from convsearch.types import Rewrite, Status

Key = tuple[str, int]
"""(qid, candidate)."""
Settings = Mapping[str, object]


class Place(NamedTuple):
    """Where a record stands in the journal, and its status."""

    offset: int
    length: int
    status: Status


def journal_path(out_path: Path) -> Path:
    """Where the journal of an output lies."""
    return out_path.with_name(f"{out_path.name}.journal")


def passport_path(out_path: Path) -> Path:
    """Where the passport of an output lies: `rewrites.run.json` beside `rewrites.jsonl`."""
    return out_path.with_name(f"{stem_of(out_path)}.run.json")


def is_finished(
    out_path: Path,
    settings: Settings,
    *,
    command: str,
    fresh: bool = False,
    kept: bool = True,
    labels: Collection[str] = (),
) -> bool:
    """Whether a run of this command with these settings finished the output.

    command: `stage` of the passport. fresh, kept: as for `Output.standing`. labels: names in the
    passport's settings that shape nothing. Raises ConfigError
    where the output is of another run or of another command, or nothing tells which.
    """
    refuse_passport_name(out_path)
    if journal_path(out_path).is_file():
        return False
    output = Output(
        passport=passport_path(out_path),
        command=command,
        made_of=settings,
        results=(out_path.name,),
        told_in="settings",
    )
    return output.standing(fresh=fresh, kept=kept, unknown=labels) == "finished"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a WriteError."""
    try:
        yield
    except ConvsearchError:
        raise
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or mend the "
            "permissions, and run the same command again: finished work is kept"
        ) from error


class Journal:
    """Finished records of one output, on disk after every block; in memory only where each stands.

    First line: the settings. Then one record a line; of a record that occurs twice the later one
    counts. A last line that a kill cut short is dropped. One run at a time may hold it.
    Raises ConfigError where the journal on disk was begun with other settings or is in use, and
    WriteError where the disk refuses.
    """

    def __init__(self, path: Path, settings: Settings, *, fresh: bool = False) -> None:
        """fresh: forgets what is there."""
        self.path = path
        self.places: dict[Key, Place] = {}
        with disk_errors(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock()
            self._end = 0 if fresh else self._read(settings)
            with disk_errors(path):
                os.ftruncate(self._fd, self._end)
            if not self._end:
                self._write(json.dumps({"settings": settings}).encode() + b"\n")
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, rewrites: Sequence[Rewrite]) -> None:
        """Adds a block; once this returns, a kill does not lose it. Raises WriteError, and then
        holds what it held before."""
        lines = [rewrite_line(rewrite) for rewrite in rewrites]
        offset = self._end
        self._write(b"".join(lines))
        for rewrite, line in zip(rewrites, lines, strict=True):
            self.places[rewrite.qid, rewrite.candidate] = Place(offset, len(line), rewrite.status)
            offset += len(line)

    def line(self, key: Key) -> str:
        """The record as it stands in the file, its line end included."""
        place = self.places[key]
        return os.pread(self._fd, place.length, place.offset).decode("utf-8")

    def close(self) -> None:
        """Closes the file and leaves it for the next run."""
        os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{self.path}: another run is writing it; wait for that, or name another output"
            ) from None

    def _read(self, settings: Settings) -> int:
        """Finds the records; returns where the last whole line ends."""
        end = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                where = f"{self.path}:{number}"
                if number == 1:
                    refuse_other(self.path, _header(line, where), settings, begun=True)
                else:
                    found = parse_rewrite_record(_object(line, where), where)
                    self.places[found.qid, found.candidate] = Place(end, len(line), found.status)
                end += len(line)
        return end

    def _write(self, data: bytes) -> None:
        """Adds bytes at the end; where not all fit, the file is cut back to what it was."""
        with disk_errors(self.path):
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._fd, data[written:], self._end + written)
                os.fsync(self._fd)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._fd, self._end)
                raise
        self._end += len(data)


def rewrite_line(rewrite: Rewrite) -> bytes:
    """One line of `rewrites.jsonl`."""
    return (json.dumps(asdict(rewrite), ensure_ascii=False) + "\n").encode("utf-8")


def _header(line: bytes, where: str) -> Settings:
    settings = _object(line, where).get("settings")
    if not isinstance(settings, dict):
        raise DataError(f"{where}: not the journal of an inference run; remove it")
    return settings


def _object(line: bytes, where: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        raise DataError(f"{where}: the journal is damaged; start over with --fresh") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: the journal is damaged; start over with --fresh")
    return record
