"""`manifest.json`: what an index folder holds. Written last, so a folder with one is complete."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import atomic_write
from convsearch.passport import sha256_of
from convsearch.retrieval.info import IndexInfo
from convsearch.texts import read_json

FORMAT = "convsearch-index"
FORMAT_VERSION = 1
PAGE_BYTES = 64 * 1024
SAMPLED_PAGES = 8
_NAME = "manifest.json"
_OWN_HASH = "facts_sha256"
_PARTS = ("manifest.json", "run.json", "vectors", "ann", "ann.partial", "write.lock")
"""Names in an index folder that no file table lists."""
_LUCENE = ("_", "segments")
"""What Lucene's own files begin with."""
REMEDY = 'copy it again, or rebuild the index with "convsearch index"'
"""What to do about a damaged index."""

Manifest = dict[str, object]
T = TypeVar("T")


def has_manifest(folder: Path) -> bool:
    """Whether a folder is an index of this project."""
    return (folder / _NAME).is_file()


def is_plain_lucene(folder: Path) -> bool:
    """Whether a folder is a Lucene index that another program made."""
    return not has_manifest(folder) and any(folder.glob("segments_*"))


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest. Raises MissingFileError or DataError with the next step."""
    path = folder / _NAME
    if not path.is_file():
        raise MissingFileError(
            f'{folder}: not an index folder ({_NAME} is missing); make one with "convsearch index"'
        )
    try:
        manifest = read_json(path)
    except DataError as error:
        raise DataError(f'{error}, or rebuild the index with "convsearch index"') from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f'{path}: not a manifest of this project; rebuild with "convsearch index"')
    if manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {manifest.get('format_version')!r}, this program reads "
            f'{FORMAT_VERSION}; rebuild the index with "convsearch index"'
        )
    return manifest


def engine_of(folder: Path) -> str:
    """`bm25`, `dense` or `lucene`; the latter also for the folder of another program. Raises as
    `read_manifest`."""
    return "lucene" if is_plain_lucene(folder) else str(read_manifest(folder).get("engine"))


def write_manifest(folder: Path, engine: str, facts: Mapping[str, object]) -> Manifest:
    """Writes the manifest with its format fields in front and its own hash; returns it."""
    manifest: Manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "engine": engine,
        **facts,
    }
    manifest[_OWN_HASH] = _hash_of(manifest)
    with atomic_write(folder / _NAME) as out:
        json.dump(manifest, out, indent=2)
        out.write("\n")
    return manifest


def check_facts(manifest: Manifest, folder: Path) -> None:
    """Raises DataError where a manifest is not what was written: a number in it that changed may
    change every rank. Manifests from before this check have no hash, and pass."""
    written = manifest.get(_OWN_HASH, _hash_of(manifest))
    if written != _hash_of(manifest):
        raise DataError(f"{folder / _NAME}: not what was written; {REMEDY}")


def _hash_of(manifest: Manifest) -> str:
    facts = {name: value for name, value in manifest.items() if name != _OWN_HASH}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_table(folder: Path, names: Iterable[str] | None = None) -> dict[str, object]:
    """Size, hash and hash of a sample of files of a finished folder, for its manifest.

    names: None takes all that it holds.
    """
    paths = folder.iterdir() if names is None else (folder / name for name in names)
    return {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "sample_sha256": _sample(path),
        }
        for path in sorted(paths)
    }


def _sample(path: Path) -> str:
    """Hash of eight pages from the first to the last at even steps; of all where there is less."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= PAGE_BYTES * SAMPLED_PAGES:
            digest.update(file.read())
        else:
            for number in range(SAMPLED_PAGES):
                file.seek((size - PAGE_BYTES) * number // (SAMPLED_PAGES - 1))
                digest.update(file.read(PAGE_BYTES))
    return digest.hexdigest()


def check_files(manifest: Manifest, folder: Path) -> None:
    """Raises DataError where a file is missing, of another size than when it was made, or other in
    its sample: half a megabyte of each file, so this takes the same time for every size. Finds
    what copying does wrong, not a single flipped bit: `damaged_files` finds that."""
    for name, entry in _files(manifest, folder).items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DataError(f"{path}: {found}, it was made with {entry['bytes']}; {REMEDY}")
        sample = entry.get("sample_sha256")  # absent in older indexes
        if sample is not None and _sample(path) != sample:
            raise DataError(f"{path}: its content is not what was written; {REMEDY}")


def lists_files(folder: Path) -> bool:
    """Whether the index says what its files are: all but Lucene indexes of another program, or from
    before theirs did. Raises as `read_manifest` where there is a manifest."""
    return not is_plain_lucene(folder) and "files" in read_manifest(folder)


def without_files(manifest: Manifest) -> Manifest:
    """The manifest as it would be without a file table: the same for equal Lucene indexes, in whose
    files Lucene puts random numbers."""
    if "files" not in manifest:
        return manifest
    facts = {name: value for name, value in manifest.items() if name not in ("files", _OWN_HASH)}
    return {**facts, _OWN_HASH: _hash_of(facts)}


def refuse_damaged(folder: Path) -> None:
    """Raises DataError where any byte of any file is not what was written. Reads all of them."""
    damaged = damaged_files(folder)
    if damaged:
        raise DataError(f"{folder}: {', '.join(damaged)} not what was written; {REMEDY}")


def damaged_files(folder: Path) -> list[str]:
    """Names of files whose content is not what the manifest says. Reads all of them.

    Raises what `read_manifest` and `check_facts` do, and DataError for an index whose manifest
    lists no files.
    """
    manifest = read_manifest(folder)
    check_facts(manifest, folder)
    return [
        path.name
        for path, digest in _hashes(manifest, folder).items()
        if not path.is_file() or sha256_of(path) != digest
    ]


def written_hashes(folder: Path) -> dict[Path, str]:
    """SHA-256 of each file when it was written; of a folder that lists none, nothing.

    Raises DataError for a damaged manifest.
    """
    if not has_manifest(folder) or not lists_files(folder):
        return {}
    manifest = read_manifest(folder)
    check_facts(manifest, folder)
    return _hashes(manifest, folder)


def _hashes(manifest: Manifest, folder: Path) -> dict[Path, str]:
    return {folder / name: str(entry["sha256"]) for name, entry in _files(manifest, folder).items()}


def _files(manifest: Manifest, folder: Path) -> dict[str, dict[str, object]]:
    """The file table. Raises DataError where there is none, or an entry of it is damaged."""
    table = fact(manifest, folder, "files", dict)
    for name, entry in table.items():
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise DataError(f"{folder / _NAME}: no size and hash of {name!r}; {REMEDY}")
    return table


def fact(manifest: Manifest, folder: Path, name: str, kind: type[T]) -> T:
    """One field, checked. Raises DataError where it is missing or of another type."""
    value = manifest.get(name)
    if not isinstance(value, kind):
        raise DataError(
            f"{folder / _NAME}: field {name!r} must be {kind.__name__}; "
            'rebuild the index with "convsearch index"'
        )
    return value


def index_info(manifest: Manifest, folder: Path) -> IndexInfo:
    """The engine's card; the fingerprint is the hash of the manifest. Raises as `fact` and
    `check_facts` do."""
    text = json.dumps(manifest, sort_keys=True)
    engine = fact(manifest, folder, "engine", str)
    num_passages = fact(manifest, folder, "num_passages", int)
    check_facts(manifest, folder)
    return IndexInfo(
        engine=engine,
        num_passages=num_passages,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def refuse_foreign_folder(out_dir: Path) -> None:
    """Raises ConfigError where this path holds something that is no index."""
    if out_dir.is_file() or (
        out_dir.is_dir() and any(out_dir.iterdir()) and not (out_dir / _NAME).is_file()
    ):
        raise ConfigError(f"{out_dir}: exists and is not an index; choose an empty folder")


def put_in_place(made: Path, out_dir: Path) -> None:
    """Gives a finished folder its name; an older index of that name is removed, and what else lay
    in its folder stays."""
    old = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.old")
    try:
        if out_dir.exists():
            out_dir.replace(old)
        made.replace(out_dir)
        for path in _foreign(old) if has_manifest(old) else ():
            if not (out_dir / path.name).exists():
                path.replace(out_dir / path.name)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _foreign(index: Path) -> list[Path]:
    """What lies in an index folder and is no part of an index."""
    try:
        table = read_manifest(index).get("files")
    except DataError:
        table = None
    own = {*_PARTS, *(table if isinstance(table, dict) else ())}
    return [p for p in index.iterdir() if p.name not in own and not p.name.startswith(_LUCENE)]
