"""One file from one address, with what an earlier attempt left.

The unfinished file is `<part>`; `<part>.json` beside it says which version of which address it is
from. It goes on only where the server says that it still has that version.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import stamina

from convsearch.data.catalogue import RawFile
from convsearch.errors import DataError
from convsearch.files import atomic_write

_SPARE_BYTES = 2**26

Progress = Callable[[str, int, int | None], None]
"""(file name, bytes here, bytes in all or None)."""


@dataclass(frozen=True, kw_only=True)
class DownloadSettings:
    """How long and how often an address is tried."""

    attempts: int = 6
    """Attempts in a row that bring no byte, before the next address."""
    wait_initial_s: float = 1.0
    """Before the second attempt; doubled each time."""
    wait_max_s: float = 60.0
    """Longest wait between two attempts."""
    timeout_s: float = 60.0
    """Longest silence of a server."""


class TryNextAddress(Exception):
    """This address will not do; the message says why."""


class _TryAgain(Exception):
    """The same address may do better. Never leaves this module."""


class Transfer:
    """The way of one file from one address to its `.part`."""

    def __init__(
        self, client: httpx.Client, url: str, file: RawFile, part: Path, progress: Progress
    ) -> None:
        self._client, self._url, self._file = client, url, file
        self._part, self._progress = part, progress
        self._furthest = 0

    def run(self, settings: DownloadSettings) -> None:
        """Ends when the part is whole. Raises TryNextAddress."""
        whole = False
        while not whole:  # an attempt that gets further starts the count of failures anew
            try:
                for attempt in stamina.retry_context(
                    on=(_TryAgain, httpx.RequestError),
                    attempts=settings.attempts,
                    timeout=None,
                    wait_initial=settings.wait_initial_s,
                    wait_max=settings.wait_max_s,
                    wait_jitter=settings.wait_initial_s,
                ):
                    with attempt:
                        whole = self._attempt()
            except httpx.InvalidURL as error:
                raise TryNextAddress(f"not an address ({error})") from None
            except (_TryAgain, httpx.RequestError) as error:
                reason = str(error) or type(error).__name__
                raise TryNextAddress(f"{reason} (tried {settings.attempts} times)") from None

    def _attempt(self) -> bool:
        """One request. True: the part is whole. False: it broke, further on than ever before.

        Raises _TryAgain and httpx.RequestError for what may pass, TryNextAddress for the rest.
        """
        start, headers = _resume_point(self._url, self._part)
        with self._client.stream("GET", self._url, headers=headers) as response:
            self._look_at(response, start)
            if response.status_code == 200:
                start = 0
            total = _total(response, start)
            _check_room(self._part.parent, self._file, total, start)
            _write_note(self._part, self._url, response, total)
            if self._part.is_symlink():  # that somebody put there: not written through
                self._part.unlink()
            at = start
            try:
                with self._part.open("r+b" if start else "wb") as out:
                    out.seek(start)
                    for block in response.iter_bytes():
                        out.write(block)
                        out.flush()  # what arrived outlives a kill
                        at += len(block)
                        if self._file.size is not None and at > self._file.size:
                            forget(self._part)
                            raise TryNextAddress(f"sends more than {self._file.size:,} bytes")
                        self._progress(self._file.name, at, total or self._file.size)
            except httpx.RequestError:
                if at <= self._furthest:
                    raise
                self._furthest = at
                return False
        if total is not None and at != total:
            raise _TryAgain(f"sent {at:,} of {total:,} bytes")
        return True

    def _look_at(self, response: httpx.Response, start: int) -> None:
        """Raises where the answer is neither the file nor the part of it that was asked for."""
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise _TryAgain(f"status {status}")
        other_part = status == 206 and not _continues(response, start)
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or other_part:
            forget(self._part)
            raise _TryAgain("has another version than the one that was begun")
        if status not in (200, 206):
            raise TryNextAddress(f"status {status}")
        if response.headers.get("content-type", "").startswith("text/html"):
            raise TryNextAddress("answered with a web page instead of the file")


def _resume_point(url: str, part: Path) -> tuple[int, dict[str, str]]:
    """Where to go on, and the headers of the request: only in the same version of the same file."""
    headers = {"Accept-Encoding": "identity"}
    if part.is_symlink():
        return 0, headers
    try:
        note = json.loads(note_of(part).read_text(encoding="utf-8"))
        size = part.stat().st_size
    except (OSError, json.JSONDecodeError):
        return 0, headers
    version = note.get("version") if isinstance(note, dict) else None
    if not size or not version or note.get("url") != url:
        return 0, headers
    if note.get("total") == size:  # whole already; a range must ask for one byte at least
        size -= 1
    return size, {**headers, "Range": f"bytes={size}-", "If-Range": version}


def _continues(response: httpx.Response, start: int) -> bool:
    return response.headers.get("content-range", "").startswith(f"bytes {start}-")


def _total(response: httpx.Response, start: int) -> int | None:
    """Bytes of the whole file, where the server says so."""
    if "content-encoding" in response.headers:
        return None
    length = response.headers.get("content-length", "")
    return start + int(length) if length.isdecimal() else None


def _check_room(folder: Path, file: RawFile, total: int | None, start: int) -> None:
    needed = (total or file.size or 0) - start
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise DataError(
            f"{folder}: {file.name} needs {needed:,} more bytes and the disk has {free:,}; make "
            "room or name another folder"
        )


def _write_note(part: Path, url: str, response: httpx.Response, total: int | None) -> None:
    etag = response.headers.get("etag", "")
    version = etag if etag and not etag.startswith("W/") else response.headers.get("last-modified")
    with atomic_write(note_of(part)) as out:
        json.dump({"url": url, "version": version, "total": total}, out)


def note_of(part: Path) -> Path:
    """Where it is written down what an unfinished file is a part of."""
    return part.with_name(f"{part.name}.json")


def forget(part: Path) -> None:
    """Removes an unfinished file and its note."""
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)
