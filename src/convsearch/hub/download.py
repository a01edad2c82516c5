"""Downloads of pinned repositories: gone on with by files, checked before they count."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convsearch.errors import DataError, HubError
from convsearch.hub.access import hub_errors, hub_token, open_hub
from convsearch.hub.catalogue import HubEntry
from convsearch.hub.lock import Locked, LockedFile, leaves_folder, read_lock, write_lock
from convsearch.passport import sha256_of

OTHER_FORMATS = (".onnx", ".h5", ".ot", ".msgpack", ".gguf", ".tflite", ".pth")
OTHER_FOLDERS = ("onnx", "openvino", "original", "coreml")
"""The same weights for programs that are not used here; several times the size of what is."""


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """One repository on this disk."""

    entry: HubEntry
    folder: Path
    revision: str
    num_files: int
    num_bytes: int
    fetched: int
    """Files that were not there, or were damaged; 0 if nothing was asked of the hub."""


def download(
    entries: Sequence[HubEntry],
    to: Path,
    lock_path: Path,
    *,
    verify: bool = False,
    endpoint: str | None = None,
    on_entry: Callable[[HubEntry, str], None] | None = None,
) -> list[Downloaded]:
    """Brings each entry to `to/<name>` at the revision of the lock file.

    An entry without one is pinned to the newest commit first. Files that are there with the right
    size (verify: the right bytes) are kept. on_entry: called before work on an entry, with the
    revision. Raises HubError, DataError for a lock of another repository, DependencyError.
    """
    locks = read_lock(lock_path)
    done = []
    for entry in entries:
        locked = locks.get(entry.name)
        if locked is None:
            locked = _pin(entry, endpoint)
            locks[entry.name] = locked
            write_lock(lock_path, locks)
        elif (locked.repo_id, locked.repo_type) != (entry.repo_id, entry.repo_type):
            raise DataError(
                f"{lock_path}: {entry.name} is {locked.repo_id} there, not {entry.repo_id}; remove "
                "the entry to pin it anew"
            )
        if on_entry:
            on_entry(entry, locked.revision)
        folder = to / entry.name
        missing = damaged_files(folder, locked, verify=verify)
        if missing:
            _fetch(entry, locked, folder, missing, endpoint)
            locks[entry.name] = locked = _with_hashes(folder, locked)
            write_lock(lock_path, locks)
        done.append(
            Downloaded(
                entry=entry,
                folder=folder,
                revision=locked.revision,
                num_files=len(locked.files),
                num_bytes=sum(file.size for file in locked.files.values()),
                fetched=len(missing),
            )
        )
    return done


def damaged_files(folder: Path, locked: Locked, *, verify: bool) -> list[str]:
    """Files of the lock that are not in `folder`, or have another size or (verify) other bytes."""
    return [
        name
        for name, file in locked.files.items()
        if not _is_whole(folder / name, file, verify=verify)
    ]


def _is_whole(path: Path, file: LockedFile, *, verify: bool) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return not (verify and file.sha256) or sha256_of(path) == file.sha256


def _pin(entry: HubEntry, endpoint: str | None) -> Locked:
    api = open_hub(endpoint)
    with hub_errors(entry.repo_id):
        ask = api.dataset_info if entry.repo_type == "dataset" else api.model_info
        info = ask(entry.repo_id, files_metadata=True)
    wanted = set(_needed([file.rfilename for file in info.siblings or []]))
    files = {
        file.rfilename: LockedFile(
            size=file.size or 0, sha256=file.lfs.sha256 if file.lfs is not None else None
        )
        for file in info.siblings or []
        if file.rfilename in wanted
    }
    if foreign := next((name for name in files if leaves_folder(name)), None):
        raise HubError(f"{entry.repo_id}: {foreign!r} leaves the folder; do not use this hub")
    if info.sha is None or not files:
        raise HubError(f"{entry.repo_id}: the hub names no files or no commit; look at its page")
    return Locked(repo_id=entry.repo_id, repo_type=entry.repo_type, revision=info.sha, files=files)


def _needed(names: Sequence[str]) -> list[str]:
    """Without weights in other formats, and without PyTorch's where safetensors are there too."""
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    return [
        name
        for name in names
        if not name.endswith(OTHER_FORMATS)
        and name.split("/")[0] not in OTHER_FOLDERS
        and not (has_safetensors and name.startswith("pytorch_model"))
    ]


def _fetch(
    entry: HubEntry, locked: Locked, folder: Path, missing: Sequence[str], endpoint: str | None
) -> None:
    """Downloads what is missing, by whole files: the client takes up a connection that breaks off,
    and begins a file anew after a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(locked.files[name].size for name in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(
            f"{entry.repo_id}: {needed / 1e9:.1f} GB are still to come and {folder} has "
            f"{free / 1e9:.1f} GB free; make room or choose another folder with --to"
        )
    for name in missing:  # the client believes any file of the right name
        (folder / name).unlink(missing_ok=True)
    for left in (folder / ".cache" / "huggingface").rglob("*.incomplete"):
        left.unlink(missing_ok=True)
    api = open_hub(endpoint)
    with hub_errors(entry.repo_id):
        api.snapshot_download(
            entry.repo_id,
            repo_type=entry.repo_type,
            revision=locked.revision,
            local_dir=folder,
            allow_patterns=list(locked.files),
            token=hub_token() or False,
        )
    for name in missing:
        if not _is_whole(folder / name, locked.files[name], verify=True):
            (folder / name).unlink(missing_ok=True)
            raise HubError(
                f"{entry.repo_id}: {name} arrived with other bytes than the lock file says; run "
                "the command again, and if it repeats remove the entry from the lock file"
            )


def _with_hashes(folder: Path, locked: Locked) -> Locked:
    """The lock with a hash for every file; the hub states none for small ones."""
    files = {
        name: file if file.sha256 else replace(file, sha256=sha256_of(folder / name))
        for name, file in locked.files.items()
    }
    return replace(locked, files=files)
