"""What `convsearch doctor` looks at. Each check is a value: what, what was found, what to do."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from convsearch.errors import (
    ConfigError,
    ConvsearchError,
    DependencyError,
    RetrieverError,
    install_command,
)

State = Literal["ok", "warn", "fail"]
OK: State = "ok"
WARN: State = "warn"
FAIL: State = "fail"

PINS = {
    "verl": "0.9.1",
    "transformers": "5.9.0",
    "tensordict": "0.10.0",
    "TransferQueue": "0.1.11",
    "ray": "2.60.0",
}
"""The versions that work together; the same as in pyproject.toml."""
TORCH = {"2.13.0": "CPU", "2.11.0": "GPU, with vLLM 0.24.0"}
"""Tested versions of PyTorch, and for what."""
PYTHONS = ((3, 10), (3, 12))
MEMORY_GB = (3.0, 8.0)
"""Free memory under which the quickstart will not fit, and under which it may get tight."""
DISK_GB = (1.0, 5.0)
READY_TIMEOUT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check."""

    state: State
    what: str
    found: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""


def examine(folder: Path, retriever_url: str | None) -> list[Finding]:
    """All checks, in the order a reader wants them."""
    return [
        python_version(sys.version_info[:2]),
        *(pinned(name, _installed(name), wanted) for name, wanted in PINS.items()),
        torch_version(_installed("torch")),
        *plugin(),
        *threads(),
        *dense_products(),
        free("free memory", psutil.virtual_memory().available, MEMORY_GB, "close other programs"),
        free(
            "free disk", shutil.disk_usage(folder.absolute()).free, DISK_GB, "make room for runs/"
        ),
        *takes_files(folder),
        *environment(),
        *outside_ray(os.environ),
        *([] if retriever_url is None else [server(retriever_url)]),
    ]


def takes_files(folder: Path) -> list[Finding]:
    """Nothing where files can be written into the folder."""
    if os.access(folder, os.W_OK | os.X_OK):
        return []
    advice = "mend its permissions, or work in another folder"
    return [Finding(state=FAIL, what="folder", found=f"{folder} takes no files", advice=advice)]


def python_version(version: tuple[int, int]) -> Finding:
    """Python 3.10 to 3.12."""
    found = ".".join(map(str, version))
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Finding(state=OK, what="Python", found=found)
    advice = "make the virtual environment with Python 3.10, 3.11 or 3.12"
    return Finding(state=FAIL, what="Python", found=found, advice=advice)


def pinned(name: str, installed: str | None, wanted: str) -> Finding:
    """A package whose exact version matters."""
    if installed is None:
        advice = f"run {install_command('train')}"
        return Finding(state=FAIL, what=name, found="not installed", advice=advice)
    if installed != wanted:
        return Finding(
            state=FAIL,
            what=name,
            found=installed,
            advice=f"{wanted} is what is tested; run pip install {name}=={wanted}",
        )
    return Finding(state=OK, what=name, found=installed)


def torch_version(installed: str | None) -> Finding:
    """PyTorch: other versions than the tested ones may well work."""
    if installed is None:
        advice = "run pip install torch==2.13.0"
        return Finding(state=FAIL, what="torch", found="not installed", advice=advice)
    if installed.split("+")[0] in TORCH:
        return Finding(state=OK, what="torch", found=installed)
    tested = " or ".join(f"{version} ({use})" for version, use in TORCH.items())
    return Finding(state=WARN, what="torch", found=installed, advice=f"tested are {tested}")


def plugin() -> list[Finding]:
    """Whether verl finds our reward manager, platform, rollout and Hydra overlay.

    verl itself goes on in silence where a plugin fails to load.
    """
    if _installed("verl") is None:
        return []
    try:
        from convsearch_verl.entry import check
    except ImportError as error:
        advice = "run pip install -e '.[train]' again"
        return [Finding(state=FAIL, what="verl plugin", found=str(error), advice=advice)]
    return [
        Finding(state=OK if found == "ok" else FAIL, what=f"verl plugin, {name}", found=found)
        for name, found in check().items()
    ]


def threads() -> list[Finding]:
    """Threads of PyTorch against cores: more threads than cores slow everything down."""
    if _installed("torch") is None:
        return []
    import torch

    num_threads, num_cores = torch.get_num_threads(), os.cpu_count() or 1
    found = f"{num_threads} on {num_cores} cores"
    if num_threads > num_cores:
        advice = f"set OMP_NUM_THREADS={num_cores}"
        return [Finding(state=WARN, what="torch threads", found=found, advice=advice)]
    return [Finding(state=OK, what="torch threads", found=found)]


def dense_products() -> list[Finding]:
    """What dense ranks are counted with; nothing where they cannot be."""
    try:
        from retriever_server.dense.units import products_here

        return [Finding(state=OK, what="dense ranks", found=products_here())]
    except (ImportError, DependencyError):
        return []


def free(what: str, num_bytes: int, bounds_gb: tuple[float, float], remedy: str) -> Finding:
    """Free memory or disk against (too little, tight), in GB."""
    gigabytes = num_bytes / 1e9
    found = f"{gigabytes:.1f} GB"
    needed, comfortable = bounds_gb
    if gigabytes < needed:
        advice = f"the quickstart needs {needed:.0f} GB; {remedy}"
        return Finding(state=FAIL, what=what, found=found, advice=advice)
    if gigabytes < comfortable:
        advice = f"{comfortable:.0f} GB are comfortable; {remedy}"
        return Finding(state=WARN, what=what, found=found, advice=advice)
    return Finding(state=OK, what=what, found=found)


def environment() -> list[Finding]:
    """Proxies and certificates of the environment; nothing where none is named."""
    from convsearch.network.clients import check_environment

    what = "network settings"
    try:
        names = check_environment()
    except ConfigError as error:
        return [Finding(state=FAIL, what=what, found=str(error))]
    if not names:
        return []
    found = f"{', '.join(names)}; addresses of this machine are asked directly"
    return [Finding(state=OK, what=what, found=found)]


def outside_ray(environment: Mapping[str, str]) -> list[Finding]:
    """A warning where trainings would use a Ray that others may reach; nothing elsewhere."""
    address = environment.get("RAY_ADDRESS")
    if not address:
        return []
    advice = "close its ports to all but its nodes: who reaches them runs code (docs/security.md)"
    return [Finding(state=WARN, what="Ray", found=f"RAY_ADDRESS={address}", advice=advice)]


def server(url: str) -> Finding:
    """Whether a retrieval server answers that it is ready."""
    from convsearch.retrieval.client import RetrieverClient

    try:
        with RetrieverClient(url, attempts=1, timeout_s=READY_TIMEOUT_S) as client:
            client.wait_ready(READY_TIMEOUT_S)
            info = client.read_info()
    except ConfigError as error:
        return Finding(state=FAIL, what="retrieval server", found=str(error))
    except RetrieverError as error:
        advice = 'start one with "convsearch serve"'
        return Finding(state=FAIL, what="retrieval server", found=str(error), advice=advice)
    if info is None:
        advice = "it is no server of convsearch, or its engine does not say what it searches"
        return Finding(state=OK, what="retrieval server", found=f"{url} answers", advice=advice)
    found = f"{url} is ready ({info.engine}, {info.num_passages:,} passages)"
    return Finding(state=OK, what="retrieval server", found=found)


def index_files(folder: Path) -> Finding:
    """Whether the files of an index are those that were made, by their hashes. Of Lucene indexes
    that list none, Lucene keeps checks of its own, in every file."""
    from retriever_server.manifest import damaged_files, engine_of, lists_files

    try:
        if engine_of(folder) == "lucene" and not lists_files(folder):
            found = f"{folder}: Lucene's files have no hashes of ours, and were not read"
            advice = "org.apache.lucene.index.CheckIndex of Lucene compares them with theirs"
            return Finding(state=WARN, what="index", found=found, advice=advice)
        damaged = damaged_files(folder)
    except ConvsearchError as error:
        return Finding(state=FAIL, what="index", found=str(error))
    if damaged:
        found = f"{folder}: {', '.join(damaged)} not as made"
        advice = 'copy them again, or rebuild the index with "convsearch index"'
        return Finding(state=FAIL, what="index", found=found, advice=advice)
    return Finding(state=OK, what="index", found=f"{folder} is as it was made")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
