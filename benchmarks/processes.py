"""Work in a process of its own, and what that process and its children hold meanwhile."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from retriever_server.making import partial_folder

SAMPLE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a process and its children hold at one moment."""

    at_s: float
    """`time.perf_counter()`, which is one clock for all processes."""
    private_mb: float
    """Memory of their own (RssAnon), all together."""
    largest_mb: float
    """Of the largest one, with the pages of files it has mapped."""
    disk_mb: float
    """Of the folder in making, parts and whole."""


def in_a_process(work: Callable[..., None], *args: object) -> tuple[Any, list[Sample]]:
    """What `work(*args, connection)` sends, and what its process and their children held."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(*args, theirs))
    process.start()
    theirs.close()
    over = threading.Event()
    samples: list[Sample] = []
    folders = [partial_folder(arg) for arg in args if isinstance(arg, Path)]
    watcher = threading.Thread(target=_watch, args=(process.pid, folders, over, samples))
    watcher.start()
    try:
        found = ours.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__}: its process ended without an answer") from None
    finally:
        over.set()
        watcher.join()
        process.join()
    return found, samples


def _watch(pid: int, folders: list[Path], over: threading.Event, samples: list[Sample]) -> None:
    while not over.wait(SAMPLE_S):
        try:
            parent = psutil.Process(pid)
            family = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        held = [memory_mb(process.pid) for process in family]
        samples.append(
            Sample(
                at_s=time.perf_counter(),
                private_mb=sum(private for private, _ in held),
                largest_mb=max(whole for _, whole in held),
                disk_mb=sum(map(folder_mb, folders)),
            )
        )


def memory_mb(pid: int) -> tuple[float, float]:
    """Private and resident memory of a process; zeros where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    kb = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Rss", "VmR"))}
    return int(kb.get("RssAnon", 0)) / 1000, int(kb.get("VmRSS", 0)) / 1000


def folder_mb(folder: Path) -> float:
    """Size of all files under it."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except OSError:  # renamed or removed meanwhile
                continue
    return total / 1e6


def forget_pages(folder: Path) -> None:
    """Takes the files out of the memory of the system, so that they are read from disk again."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
