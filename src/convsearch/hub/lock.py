"""`hub.lock.json`: which revision of each repository was taken, and the files it holds.

The first download of a repository asks the hub for its newest commit and writes it here; every
later one takes that commit. The file can be handed on: whoever has it gets the same bytes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import atomic_write, field
from convsearch.texts import read_json_object

LOCK_NAME = "hub.lock.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """One file of a repository."""

    size: int
    """Bytes."""
    sha256: str | None
    """As the hub states it, which it does for large files; else of the first download."""


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One repository at one commit."""

    repo_id: str
    repo_type: str
    revision: str
    """Commit of the hub, 40 hex digits."""
    files: dict[str, LockedFile]
    """Path in the repository -> file."""


def leaves_folder(name: str) -> bool:
    """Whether the path of a file in a repository is none within its folder."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def read_lock(path: Path) -> dict[str, Locked]:
    """Entries by name; none where there is no file. Raises DataError for a damaged one."""
    if not path.is_file():
        return {}
    record = read_json_object(path, "restore it, or remove it to pin anew")
    return {name: _parse(entry, f"{path}: {name}") for name, entry in record.items()}


def write_lock(path: Path, entries: Mapping[str, Locked]) -> None:
    """Writes all entries, sorted by name."""
    with atomic_write(path) as out:
        json.dump({name: asdict(entries[name]) for name in sorted(entries)}, out, indent=2)
        out.write("\n")


def _parse(entry: object, where: str) -> Locked:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected a JSON object")
    files: dict[str, LockedFile] = {}
    for name, file in field(entry, "files", dict, where).items():
        if not isinstance(file, dict):
            raise DataError(f"{where}: {name}: expected a JSON object")
        if leaves_folder(name):
            raise DataError(f"{where}: {name}: leaves the folder; restore the lock file")
        sha256 = file.get("sha256")
        files[name] = LockedFile(
            size=field(file, "size", int, f"{where}: {name}"),
            sha256=sha256 if isinstance(sha256, str) else None,
        )
    revision = field(entry, "revision", str, where)
    if not _COMMIT.fullmatch(revision):
        raise DataError(f"{where}: revision {revision!r} is no commit (40 hex digits)")
    return Locked(
        repo_id=field(entry, "repo_id", str, where),
        repo_type=field(entry, "repo_type", str, where),
        revision=revision,
        files=files,
    )
