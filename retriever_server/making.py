"""Folders of indexes that take long to build: one process at a time, found again after a kill."""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import atomic_write
from convsearch.made import refuse_other, tell_kept
from retriever_server.manifest import (
    damaged_files,
    has_manifest,
    lists_files,
    put_in_place,
    read_manifest,
    refuse_foreign_folder,
)

logger = logging.getLogger(__name__)

JOB, LOCK = "job.json", "lock"


def partial_folder(out_dir: Path) -> Path:
    """Where the index of this name is while it is being built."""
    return out_dir.with_name(f"{out_dir.name}.partial")


def is_made(out_dir: Path, engine: str, facts: Mapping[str, object]) -> bool:
    """Whether `out_dir` is the whole index of these facts; a damaged one is none.

    facts: fields of the manifest that corpus and settings decide. Raises ConfigError where it is
    another index, or no index at all.
    """
    refuse_foreign_folder(out_dir)
    if not has_manifest(out_dir):
        return False
    manifest = read_manifest(out_dir)
    wanted = {"engine": engine, **facts}
    refuse_other(out_dir, {name: manifest[name] for name in wanted if name in manifest}, wanted)
    try:
        damaged = damaged_files(out_dir) if lists_files(out_dir) else []
    except DataError as error:
        damaged = [str(error)]
    if damaged:
        logger.warning("%s: damaged (%s); it is built again", out_dir, ", ".join(damaged))
        return False
    tell_kept(out_dir)
    return True


def discard_unfinished(out_dir: Path) -> None:
    """Removes what a killed build of this index has left.

    Raises ConfigError where another process works there.
    """
    folder = partial_folder(out_dir)
    if (folder / JOB).is_file():
        with _locked(folder):
            shutil.rmtree(folder)


@contextmanager
def held(folder: Path, settings: Mapping[str, object]) -> Iterator[None]:
    """Makes a folder or takes up an older one, for this process alone.

    Raises ConfigError where another process works here or where the folder is of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check(folder, settings)
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another process is building this index; wait for it"
            ) from None
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
            "run it with the same settings, or delete this folder to begin anew, as --fresh does"
        )
