"""Raw files over HTTP: resumed, checked, and under their name only when they are whole.

An unfinished file is `.<name>.part` (see `transfer`). `downloads.lock.json` keeps what the first
download of each file was; every later check uses it where nobody publishes a digest.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from convsearch.data.catalogue import RawFile
from convsearch.data.holding import disk_errors_named, held
from convsearch.data.transfer import (
    DownloadSettings,
    Progress,
    Transfer,
    TryNextAddress,
    forget,
    note_of,
)
from convsearch.errors import DataError, DownloadError, MissingFileError
from convsearch.files import atomic_write
from convsearch.network.clients import http_client
from convsearch.texts import read_json

LOCK_FILE = "downloads.lock.json"
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """One raw file that is here and checked."""

    name: str
    path: Path
    size: int
    sha256: str
    how: str
    """`published`: equals what the catalogue says. `recorded`: equals what the lock file has kept
    since the first download. `first`: nobody publishes a digest, and it was recorded just now."""


@dataclass(frozen=True, kw_only=True)
class _Expected:
    """A file with the digest that it must have, and where that one is from."""

    file: RawFile
    how: str


def fetch(
    files: Sequence[RawFile],
    folder: Path,
    *,
    offline: bool = False,
    settings: DownloadSettings | None = None,
    on_progress: Progress | None = None,
) -> list[Fetched]:
    """Brings all files into the folder and checks them; what is there already is only checked.

    offline: nothing is fetched. Raises MissingFileError that names what to fetch by hand and where
    to put it, DownloadError where no address has a file, DataError where one is damaged or differs
    from what was recorded, or where the disk is full; ConfigError where another process is at work.
    """
    settings = settings or DownloadSettings()
    with disk_errors_named(folder), held(folder):
        missing = [file for file in files if not (folder / file.name).is_file()]
        if offline and missing:
            raise MissingFileError(by_hand(missing, folder))
        lock = read_lock(folder)
        wanted = [_expected(file, lock) for file in files]
        for each in wanted:
            if not (folder / each.file.name).is_file():
                _download(each.file, folder, settings, on_progress or _quiet)
        return [_check(each, folder, trust_clock=True) for each in wanted]


def verify(files: Sequence[RawFile], folder: Path) -> list[Fetched]:
    """Reads all files again and compares them. Raises as `fetch` does; fetches nothing."""
    if not folder.is_dir():
        raise MissingFileError(by_hand(files, folder))
    with disk_errors_named(folder), held(folder):
        missing = [file for file in files if not (folder / file.name).is_file()]
        if missing:
            raise MissingFileError(by_hand(missing, folder))
        lock = read_lock(folder)
        return [_check(_expected(file, lock), folder, trust_clock=False) for file in files]


def by_hand(files: Iterable[RawFile], folder: Path) -> str:
    """What to fetch without this program, and where to put it."""
    lines = [f"{folder}: these files are missing; fetch them by hand, then run the same command:"]
    for file in files:
        lines.append(f"  {' or '.join(file.urls)}")
        lines.append(f"    -> {folder / file.name}")
    return "\n".join(lines)


# --- one download --------------------------------------------------------------------------------


def _download(file: RawFile, folder: Path, settings: DownloadSettings, progress: Progress) -> None:
    """Brings one file, from the first address that has it."""
    failures = []
    timeout = httpx.Timeout(settings.timeout_s, connect=min(30.0, settings.timeout_s))
    for url in file.urls:
        part = folder / f".{file.name}.part"
        with http_client(url, follow_redirects=True, timeout=timeout) as client:
            try:
                Transfer(client, url, file, part, progress).run(settings)
                _put_in_place(part, file, folder, url)
            except TryNextAddress as reason:
                failures.append(f"  {url}: {reason}")
                continue
            return
    raise DownloadError(
        f"{file.name} could not be fetched:\n" + "\n".join(failures) + "\n"
        f"What arrived is kept; try again later, or fetch it by hand to {folder / file.name}"
    )


def _put_in_place(part: Path, file: RawFile, folder: Path, url: str) -> None:
    """Checks the whole part, gives it its name and records it. Raises TryNextAddress."""
    digests = _digests(part)
    try:
        _compare(file, part.stat().st_size, digests)
    except DataError as error:
        forget(part)
        raise TryNextAddress(str(error)) from None
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(folder / file.name)
    note_of(part).unlink(missing_ok=True)
    _record(folder, file.name, digests["sha256"], url=url)


# --- checks --------------------------------------------------------------------------------------


def _expected(file: RawFile, lock: Mapping[str, Mapping[str, object]]) -> _Expected:
    """The file with the digest of the catalogue, else with the one that was recorded."""
    recorded = lock.get(file.name, {}).get("sha256")
    if file.sha256 or file.md5:
        return _Expected(file=file, how="published")
    if isinstance(recorded, str):
        return _Expected(file=replace(file, sha256=recorded), how="recorded")
    return _Expected(file=file, how="first")


def _check(expected: _Expected, folder: Path, *, trust_clock: bool) -> Fetched:
    """Compares one file with what it must be, and records it where that is not known.

    trust_clock: a file whose size and time are those in the lock is not read again.
    """
    file, path = expected.file, folder / expected.file.name
    status, known = path.stat(), read_lock(folder).get(file.name, {})
    sha256 = known.get("sha256")
    unchanged = (known.get("size"), known.get("mtime_ns")) == (status.st_size, status.st_mtime_ns)
    if not (trust_clock and unchanged and isinstance(sha256, str)):
        digests = _digests(path)
        sha256 = digests["sha256"]
        try:
            _compare(file, status.st_size, digests)
        except DataError as error:
            published = "what is published", "remove it to fetch it again"
            recorded = "what it was at first", f"remove it, or its entry in {LOCK_FILE}"
            source, way_out = recorded if expected.how == "recorded" else published
            raise DataError(f"{path}: differs from {source}: {error}; {way_out}") from None
        _record(folder, file.name, sha256, url=known.get("url"))
    return Fetched(name=file.name, path=path, size=status.st_size, sha256=sha256, how=expected.how)


def _compare(file: RawFile, size: int, digests: Mapping[str, str]) -> None:
    """Raises DataError where size or digests are not those of the file."""
    if file.size is not None and size != file.size:
        raise DataError(f"{size:,} bytes instead of {file.size:,}")
    for name, wanted in (("sha256", file.sha256), ("md5", file.md5)):
        if wanted is not None and digests[name] != wanted:
            raise DataError(f"{name} {digests[name]} instead of {wanted}")


def _digests(path: Path) -> dict[str, str]:
    """sha256 and md5, in one reading. md5 is no protection, but all that some publishers give."""
    hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            for each in hashes.values():
                each.update(block)
    return {name: each.hexdigest() for name, each in hashes.items()}


def read_lock(folder: Path) -> dict[str, dict[str, object]]:
    """What `downloads.lock.json` of the folder holds; empty without one. Raises DataError."""
    path = folder / LOCK_FILE
    if not path.is_file():
        return {}
    try:
        lock = read_json(path)
    except DataError:
        lock = None
    if not isinstance(lock, dict) or not all(isinstance(v, dict) for v in lock.values()):
        raise DataError(f"{path}: not a record of downloads; remove it to record them anew")
    return lock


def _record(folder: Path, name: str, sha256: str, *, url: object) -> None:
    """url: where it is from; None for a file that was put there by hand."""
    status = (folder / name).stat()
    lock = read_lock(folder)
    lock[name] = {
        "sha256": sha256,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "url": url,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    _write_lock(folder, lock)


def _write_lock(folder: Path, lock: Mapping[str, object]) -> None:
    with atomic_write(folder / LOCK_FILE) as out:
        json.dump(lock, out, indent=2)
        out.write("\n")


def _quiet(_name: str, _done: int, _total: int | None) -> None:
    pass
