"""`run.json`: what a reader needs to check or repeat a result, beside every output."""

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from convsearch.files import atomic_write

PACKAGES = ("convsearch", "verl", "torch", "transformers", "ray", "numba", "numpy")
_BLOCK_BYTES = 2**20


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that shape results; absent ones left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Commit of this checkout, with `+changes` where files differ; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if dirty else commit


def sha256_of(path: Path) -> str:
    """Hash of a file, or of the names and hashes of all files under a folder."""
    if path.is_file():
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()
    lines = [
        f"{child.relative_to(path)} {sha256_of(child)}"
        for child in sorted(path.rglob("*"))
        if child.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_repeatable_passport(
    path: Path,
    *,
    stage: str,
    seed: int,
    counts: Mapping[str, int],
    name: str,
    outputs: Sequence[Path],
    made: Mapping[str, object] | None = None,
) -> None:
    """The passport of a data set that depends on its seed alone, so that its own bytes repeat too.

    It holds neither time nor versions. outputs: files of the same folder, stored with their hash.
    made: as for `write_passport`.
    """
    passport = {
        "stage": stage,
        "seed": seed,
        "counts": dict(counts),
        "outputs": {file.name: sha256_of(file) for file in outputs},
        "settings": {"name": name},
        **(made or {}),
    }
    with atomic_write(path) as out:
        json.dump(passport, out, indent=2)
        out.write("\n")


def write_passport(
    path: Path,
    *,
    stage: str,
    settings: Mapping[str, object],
    inputs: Sequence[Path] = (),
    counts: Mapping[str, int] | None = None,
    seed: int | None = None,
    seconds: float | None = None,
    made: Mapping[str, object] | None = None,
) -> None:
    """Writes the passport of one output, atomically.

    settings: resolved configuration, JSON-ready. inputs: files or folders, stored with their hash.
    made: `record` or `identity` of a `convsearch.made.Output`: by it a later call knows this.
    """
    passport = {
        "stage": stage,
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git": git_revision(),
        "versions": versions(),
        "seed": seed,
        "seconds": seconds,
        "counts": dict(counts or {}),
        "inputs": {str(p): sha256_of(p) for p in inputs},
        "settings": dict(settings),
        **(made or {}),
    }
    with atomic_write(path) as out:
        json.dump(passport, out, indent=2, ensure_ascii=False, default=str)
        out.write("\n")
