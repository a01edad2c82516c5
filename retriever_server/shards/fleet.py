"""Shards as applications of Ray Serve: started, found again after a crash, and ended.

Serve watches the process of each shard and starts it anew where it died.
"""

import contextlib
import logging
import os
import re
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from convsearch.errors import DependencyError, EngineError, install_command
from convsearch.network.private_ray import private_ray
from retriever_server.cores import num_cores
from retriever_server.settings import IndexSettings, ShardSettings
from retriever_server.shards.backend import Shard, ShardedBackend
from retriever_server.shards.instance import check_room, cluster, import_paths, own_instance
from retriever_server.shards.plan import PartSpec, cut, open_whole
from retriever_server.shards.replica import ShardReplica

_FIRST_QUERY = "is anyone there"
_PREFIX = "convsearch"
"""Of the names of applications: then come host, process and number."""
_SERVING: dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": 64,
    "health_check_period_s": 1.0,
    "health_check_timeout_s": 30.0,
    "graceful_shutdown_timeout_s": 1.0,
    "max_constructor_retry_count": 3,
}
"""A process that died is noticed within a second, one that is stuck within half a minute. Each
shard has one call for each index at a time, and probes."""
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


class Fleet:
    """The shards of one server, for a `with` block: `open` each index, then `start` once."""

    def __init__(self, settings: ShardSettings, *, deadline_s: float) -> None:
        """deadline_s: of one call of a shard."""
        if settings.ray_address is None:
            os.environ.update(private_ray())
        try:
            import ray.serve  # noqa: F401
        except ImportError as error:
            raise DependencyError(
                f"{error.name} is not installed; run {install_command('shards')}"
            ) from None
        from retriever_server.shards.line import Line

        self._settings = settings
        numbers = range(1, settings.shards + 1)
        self._lines = [
            Line(f"shard {number} of {settings.shards}", deadline_s) for number in numbers
        ]
        self._specs: list[list[PartSpec]] = [[] for _ in numbers]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def open(self, index_path: Path, engine: str, settings: IndexSettings) -> ShardedBackend:
        """An index that the shards will search; see `Opener`. It answers once they have started.

        Raises ConfigError where it cannot be cut into so many parts, and what opening raises.
        """
        from retriever_server.shards.line import RemotePart

        found = open_whole(index_path, engine, settings)
        rows = cut(found, len(self._lines))
        place = len(self._specs[0])
        first_query = found.asked([_FIRST_QUERY])
        for own, part in zip(self._specs, rows, strict=True):
            own.append(
                PartSpec(
                    index_path=index_path.absolute(),
                    engine=engine,
                    fingerprint=found.info.fingerprint,
                    rows=part,
                    num_passages=len(found.store),
                    first_query=first_query,
                )
            )
        shards = [
            Shard(rows=part, part=RemotePart(line, place), is_up=line.is_up)
            for line, part in zip(self._lines, rows, strict=True)
        ]
        return ShardedBackend(found, shards)

    def start(self) -> None:
        """Starts Ray or joins it, and the shards; returns when all of them can search.

        Raises EngineError with the sentence of a shard that cannot, ConfigError where Ray has not
        enough processors, GPUs or address.
        """
        import ray
        from ray import serve

        wanted = self._settings
        if wanted.ray_address is None:
            cpus = wanted.cpus or max(1, num_cores() // wanted.shards)
            self._stack.enter_context(own_instance(cpus * wanted.shards))
        else:
            self._stack.enter_context(cluster(wanted.ray_address))
            cpus = int(ray.cluster_resources().get("CPU", 0)) // wanted.shards
            cpus = wanted.cpus or max(1, cpus)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled", logging_config=_LOGGING)
        if wanted.ray_address is not None:
            _delete(_apps_of_the_dead())
        check_room(wanted.shards, cpus, wanted.gpus)
        self._deploy(cpus)

    def _deploy(self, cpus: int) -> None:
        from ray import serve

        wanted = self._settings
        prefix = f"{_PREFIX}-{socket.gethostname()}-{os.getpid()}"
        names = [f"{prefix}-{number}" for number in range(1, wanted.shards + 1)]
        self._stack.callback(self._stop, names)
        options = {
            "num_cpus": cpus,
            "num_gpus": wanted.gpus,
            "runtime_env": {"env_vars": {"PYTHONPATH": import_paths()}},
        }
        try:
            handles = serve.run_many(
                [
                    serve.RunTarget(
                        serve.deployment(**_SERVING)(ShardReplica)
                        .options(name=f"shard-{i + 1}", ray_actor_options=options)
                        .bind(specs, threads=cpus, private=wanted.ray_address is None),
                        name=name,
                        route_prefix=None,
                        logging_config=_LOGGING,
                    )
                    for i, (name, specs) in enumerate(zip(names, self._specs, strict=True))
                ]
            )
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise EngineError(f"the shards did not start: {reason}") from None
        for line, handle in zip(self._lines, handles, strict=True):
            line.open(handle)

    def _stop(self, names: list[str]) -> None:
        for line in self._lines:
            line.close()
        if self._settings.ray_address is not None:  # our own instance ends as a whole
            _delete(names)


def _apps_of_the_dead() -> list[str]:
    """Shards that a server of this machine left on the cluster when it was killed."""
    from ray import serve

    mine = re.compile(rf"{_PREFIX}-{re.escape(socket.gethostname())}-(\d+)-\d+")
    found = ((name, mine.fullmatch(name)) for name in serve.status().applications)
    return [name for name, match in found if match and not psutil.pid_exists(int(match[1]))]


def _delete(names: list[str]) -> None:
    from ray import serve
    from ray.serve.exceptions import RayServeException

    for name in names:
        with contextlib.suppress(RayServeException):
            serve.delete(name, _blocking=False)
