"""Folders of indexes that take long to build: one process at a time, found again after a kill."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import atomic_write
from retriever_server.manifest import put_in_place, refuse_foreign_folder

JOB, LOCK = "job.json", "lock"


def partial_folder(out_dir: Path) -> Path:
    """Where the index of this name is while it is being built."""
    return out_dir.with_name(f"{out_dir.name}.partial")


@contextmanager
def held(folder: Path, settings: Mapping[str, object]) -> Iterator[None]:
    """Makes a folder or takes up an older one, for this process alone.

    Raises ConfigError where another process works here or where the folder is of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another process is building this index; wait for it"
            ) from None
        _check(folder, settings)
        yield


@contextmanager
def kept_whole(out_dir: Path, settings: Mapping[str, object]) -> Iterator[Path]:
    """A folder that outlives a kill, and takes the name `out_dir` when the block ends without an
    error.

    What is there of a build that was killed is found again; a corpus that is at fault leaves
    nothing. Raises ConfigError as `held` does, and where `out_dir` holds something else.
    """
    refuse_foreign_folder(out_dir)
    folder = partial_folder(out_dir)
    with held(folder, settings):
        whole = folder / "whole"
        whole.mkdir(exist_ok=True)
        try:
            yield whole
        except (DataError, MissingFileError):
            shutil.rmtree(folder)
            raise
        put_in_place(whole, out_dir)
        shutil.rmtree(folder)


@contextmanager
def parts_and_whole(out_dir: Path, settings: Mapping[str, object]) -> Iterator[tuple[Path, Path]]:
    """Two folders: for parts that outlive a kill, and for the whole that is made of them, which
    begins empty. Otherwise as `kept_whole`."""
    with kept_whole(out_dir, settings) as whole:
        parts = whole.with_name("parts")
        shutil.rmtree(whole)
        parts.mkdir(exist_ok=True)
        whole.mkdir()
        yield parts, whole


def _check(folder: Path, settings: Mapping[str, object]) -> None:
    path = folder / JOB
    if not path.is_file():
        with atomic_write(path) as out:
            json.dump(dict(settings), out, indent=1)
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        known = {}
    differing = sorted(name for name in settings if known.get(name) != settings[name])
    if differing:
        name = differing[0]
        raise ConfigError(
            f"{folder}: begun with {name} = {known.get(name)!r}, now {settings[name]!r}; "
            "run it with the same settings, or delete this folder to begin anew"
        )
