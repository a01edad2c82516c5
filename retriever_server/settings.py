"""What to serve, where, and to whom: the settings of the server, checked before anything loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from convsearch.errors import ConfigError
from convsearch.listening import LOOPBACK

DEFAULT_HOST = LOOPBACK
DEFAULT_PORT = 8000
DEFAULT_DEADLINE_S = 25.0
"""Below the 30 s after which the clients of verl and SkyRL hang up."""
DEFAULT_MAX_IN_FLIGHT = 512
"""As of text-embeddings-inference; a GRPO step sends fewer, and larger, requests."""
DEFAULT_INDEX = "default"
"""Name of an index that was given without one."""


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """One index, and what is needed to search it."""

    index_path: Path
    """Folder made by `convsearch index`, or any Lucene index of Anserini or Pyserini."""
    fuse_with: Path | None = None
    """A second index of the same corpus; the two are fused by reciprocal ranks."""
    trec_path: Path | None = None
    """Qrels of the query ids that clients send; without them clients send `gold_ids`."""
    retriever_name: str | None = None
    """`bm25` or `ance` (any dense index); None takes what the index is."""
    encoder_path: Path | None = None
    """Folder of the query encoder; dense only."""
    k1: float | None = None
    """BM25 of a Lucene index; None takes what it was built with, 0.9 where that is not known."""
    b: float | None = None
    """As k1; 0.4 where it is not known."""
    java_heap: str | None = None
    """Largest heap of Java, such as 4g; Lucene only. None takes 2g."""
    verify: bool = False
    """Read an index that lists its files through and compare their hashes before serving, not
    while."""

    @property
    def folders(self) -> list[Path]:
        """The index, or the two that are fused."""
        return [self.index_path, *([self.fuse_with] if self.fuse_with else [])]

    @property
    def watched(self) -> list[Path]:
        """All that the ranks depend on: also the query encoder."""
        return [*self.folders, *([self.encoder_path] if self.encoder_path else [])]


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """Several processes that search parts of every index, by Ray Serve."""

    shards: int
    """How many."""
    cpus: int | None = None
    """Cores of each; None shares out those of the machine or cluster."""
    gpus: float = 0.0
    """GPUs of each, for dense indexes; 0.5 puts two shards on one."""
    ray_address: str | None = None
    """Of a running cluster, `auto` or `host:port`; None starts Ray on this machine alone."""

    def __post_init__(self) -> None:
        if self.shards < 1 or self.gpus < 0 or (self.cpus is not None and self.cpus < 1):
            raise ConfigError(
                "--shards and --shard_cpus must be 1 or more, --shard_gpus 0 or more; got "
                f"{self.shards}, {self.cpus} and {self.gpus:g}"
            )


@dataclass(frozen=True, kw_only=True)
class ServerSettings(IndexSettings):
    """The index of requests that name none, further ones, and the address."""

    further: Mapping[str, IndexSettings] = field(default_factory=dict)
    """Further indexes by the name of `/retrieve?index=`."""
    name: str = DEFAULT_INDEX
    """Name of the first index."""
    host: str = DEFAULT_HOST
    """Address to listen on."""
    port: int = DEFAULT_PORT
    """0 takes a free port."""
    api_key: str | None = field(default=None, repr=False)
    """What clients must send; None asks for nothing."""
    allow_unauthenticated: bool = False
    """Listen beyond this machine without a key."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients may ask beside the server's own; only looked at without a key."""
    log_path: Path | None = None
    """File of the request log, appended to; None takes stderr."""
    deadline_s: float = DEFAULT_DEADLINE_S
    """Of one request; later is answered 504."""
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    """Requests being worked on; more are answered 503."""
    sharding: ShardSettings | None = None
    """None searches in this process."""

    def __post_init__(self) -> None:
        if self.deadline_s <= 0 or self.max_in_flight < 1:
            raise ConfigError(
                "--deadline_s must be above 0 and --max_in_flight 1 or more; got "
                f"{self.deadline_s:g} and {self.max_in_flight}"
            )
        if self.name in self.further:
            raise ConfigError(f"two indexes are called {self.name!r}; give each its own name")


def sharding_of(
    shards: int | None, cpus: int | None, gpus: float | None, ray_address: str | None
) -> ShardSettings | None:
    """From flags. Raises ConfigError where there are others and no `--shards`."""
    if shards is not None:
        return ShardSettings(shards=shards, cpus=cpus, gpus=gpus or 0.0, ray_address=ray_address)
    if (cpus, gpus, ray_address) != (None, None, None):
        raise ConfigError("--shard_cpus, --shard_gpus and --ray_address need --shards")
    return None
