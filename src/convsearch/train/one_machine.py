"""A training on one machine: what its processes are told so that nobody else reaches them.

Ray and TransferQueue listen on the machine's network address and run any pickle that is sent there;
torch's store and gloo listen on it too. `private_environment` moves them to loopback or to sockets
in a folder of this user alone, and gives Ray a token (docs/security.md).

Recipes and scripts call `python -m convsearch.train.one_machine COMMAND...`: the command, run so.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from convsearch.errors import WriteError
from convsearch.listening import LOOPBACK, SOCKETS_VARIABLE
from convsearch.network.private_ray import private_ray
from convsearch.socket_folders import make_socket_folder, socket_root

PREFIX = "cs-"
"""Of the scratch folders, in the folder for temporary files."""
OWNER = "owner"
"""File in a scratch folder: process id and start time of the process that made it."""
RENDEZVOUS = "loopback://"
"""verl's `DIST_INIT_METHOD`, answered by `convsearch.network.torch_store`."""


def private_environment(scratch: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Variables for a trainer and all its workers; scratch: an absolute folder of this user alone.

    given: the environment so far; network interfaces that it names are kept.
    """
    return {
        **_torch_environment(scratch, given),
        **_ray_environment(scratch),
        **home_environment(scratch, given),
    }


def home_environment(scratch: Path, given: Mapping[str, str]) -> dict[str, str]:
    """HOME where the user's own takes no files: verl and its libraries make caches below it."""
    home = Path(given.get("HOME") or "~").expanduser()
    cache = home / ".cache"
    usable = os.access(cache if cache.exists() else home, os.W_OK | os.X_OK)
    return {} if usable else {"HOME": str(scratch)}


def _torch_environment(scratch: Path, given: Mapping[str, str]) -> dict[str, str]:
    """torchrun's processes find each other by a file, and share no store with torchrun itself,
    which would listen on all addresses; PET_<option> is torchrun's way of taking options so."""
    interface = "lo0" if sys.platform == "darwin" else "lo"
    chosen = {
        name: interface
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        if not given.get(name)
    }
    return {
        **chosen,
        "DIST_INIT_METHOD": RENDEZVOUS,
        "PET_LOCAL_ADDR": LOOPBACK,
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_CONF": "store_type=file",
        "PET_RDZV_ENDPOINT": str(scratch / "rendezvous"),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def _ray_environment(scratch: Path) -> dict[str, str]:
    return {**private_ray(), "RAY_TMPDIR": str(scratch), SOCKETS_VARIABLE: str(scratch)}


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for one run, readable by this user alone; its path is short, because it holds
    sockets. Removes first what runs that were killed have left."""
    folder = make_scratch_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_scratch_folder() -> Path:
    """The folder by itself; the next call after this process has ended removes it. Raises
    WriteError."""
    sweep(socket_root())
    folder = make_socket_folder(PREFIX)
    (folder / OWNER).write_text(_identity(psutil.Process()), encoding="utf-8")
    return folder


def sweep(root: Path) -> None:
    """Removes this user's scratch folders whose process is gone."""
    for owner in root.glob(f"{PREFIX}*/{OWNER}"):
        with contextlib.suppress(OSError):
            if owner.parent.stat().st_uid == os.getuid() and not _lives(owner.read_text("utf-8")):
                shutil.rmtree(owner.parent, ignore_errors=True)


def _identity(process: psutil.Process) -> str:
    return f"{process.pid} {process.create_time():.2f}"


def _lives(identity: str) -> bool:
    pid = identity.partition(" ")[0]
    try:
        return not pid.isdigit() or _identity(psutil.Process(int(pid))) == identity
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def main() -> None:
    """Becomes the command of the arguments. A Ray that was started elsewhere (RAY_ADDRESS) is used
    as it is."""
    try:
        scratch = make_scratch_folder()
    except WriteError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    os.environ.update(_torch_environment(scratch, os.environ))
    os.environ.update(home_environment(scratch, os.environ))
    if os.environ.get("RAY_ADDRESS"):
        sys.stderr.write(
            "warning: RAY_ADDRESS names a Ray that is running already: whether others reach its "
            "ports is up to who started it (docs/security.md)\n"
        )
    else:
        os.environ.update(_ray_environment(scratch))
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
