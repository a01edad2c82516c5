"""The Ray that shards run on: one of our own on this machine, or a cluster that is there."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from convsearch.errors import ConfigError, EngineError
from convsearch.socket_folders import make_socket_folder
from retriever_server.shards import keeper

_OBJECT_STORE_BYTES = 256 * 2**20
"""For queries on their way: 2,048 vectors of 768 numbers are 6 MB, for each shard."""
_KEEPER_S = 20.0
_START_ATTEMPTS = 3
FREED_S = 30.0
"""Until processors and GPUs that somebody holds count as taken."""
_POLL_S = 0.25


@contextlib.contextmanager
def own_instance(num_cpus: int) -> Iterator[None]:
    """Ray on this machine for the time of the block, of which no process and no file is left.

    num_cpus: that Ray may give away; they need not exist.
    """
    import ray

    marker = uuid.uuid4().hex
    folder = str(make_socket_folder("shards-"))
    keeping = subprocess.Popen(
        [sys.executable, keeper.__file__, marker, folder],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    os.environ[keeper.MARKER] = marker
    try:
        with _our_signals():
            _start(num_cpus, folder)
        yield
    finally:
        del os.environ[keeper.MARKER]
        ray.shutdown()
        assert keeping.stdin is not None
        keeping.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeping.wait(_KEEPER_S)


def _start(num_cpus: int, folder: str) -> None:
    """Ray gives its processes 30 s to start, which a busy machine may exceed: then again."""
    import ray

    for attempt in range(_START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=folder,
                _system_config={"worker_niceness": 0},  # searching is what this machine is for
            )
            return
        except Exception as error:  # which has no class of its own
            ray.shutdown()
            if attempt + 1 == _START_ATTEMPTS:
                raise EngineError(f"Ray does not start on this machine: {error}") from None


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """A connection to a running cluster. Raises EngineError where there is none."""
    import ray

    try:
        with _our_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"--ray_address {address}: no Ray cluster answers there ({error}); run this on one of "
            'its machines, start it with "ray start", and set RAY_AUTH_MODE=token where it asks '
            "for a token"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def check_room(shards: int, cpus: int, gpus: float) -> None:
    """Raises ConfigError where Ray has not enough for all shards, or others hold it: Serve would
    wait for ever. What the processes of an ended server hold comes back within seconds, which this
    waits for."""
    import ray

    wanted = {"CPU": float(shards * cpus), "GPU": shards * gpus}
    deadline = time.monotonic() + FREED_S
    while True:
        has, free = ray.cluster_resources(), ray.available_resources()
        short = [what for what, all_of_them in wanted.items() if all_of_them > free.get(what, 0.0)]
        if not short:
            return
        never = any(wanted[what] > has.get(what, 0.0) for what in short)
        if never or time.monotonic() > deadline:
            what = short[0]
            raise ConfigError(
                f"{shards} shards of {wanted[what] / shards:g} {what} each need {wanted[what]:g}; "
                f"Ray has {has.get(what, 0.0):g}, of which {free.get(what, 0.0):g} are free; ask "
                "for fewer, or add machines"
            )
        time.sleep(_POLL_S)


def import_paths() -> str:
    """PYTHONPATH with which a process finds this project as this one has."""
    root = Path(__file__).resolve().parents[2]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(root), str(root / "src"), *filter(None, known)])


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM; ours is put back, and a SIGTERM meanwhile is ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise SystemExit(0) from None
    finally:
        signal.signal(signal.SIGTERM, before)
