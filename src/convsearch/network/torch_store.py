"""The rendezvous `loopback://`: torch's store for the processes of one machine.

torch's own `env://` listens on all addresses and answers whoever asks. verl takes the rendezvous
from `DIST_INIT_METHOD`; this one reads the same variables as `env://` (RANK, WORLD_SIZE,
MASTER_PORT) and listens on 127.0.0.1.
"""

import os
import socket
from collections.abc import Iterator
from datetime import timedelta

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import register_rendezvous_handler

from convsearch.listening import LOOPBACK

SCHEME = "loopback"


def install() -> None:
    """Makes torch know the scheme in this process. Idempotent."""
    try:
        register_rendezvous_handler(SCHEME, rendezvous)
    except RuntimeError:
        return  # torch refuses a scheme that it knows


def rendezvous(
    url: str, timeout: timedelta = default_pg_timeout, **_: object
) -> Iterator[tuple[TCPStore, int, int]]:
    """(store, rank, world size), once. Rank 0 holds the store. Raises KeyError for an environment
    without the variables, OSError where the port is taken."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    port = int(os.environ["MASTER_PORT"])
    if rank:
        yield (
            TCPStore(LOOPBACK, port, world_size, is_master=False, timeout=timeout),
            rank,
            world_size,
        )
    else:
        listening = socket.create_server((LOOPBACK, port))
        store = TCPStore(
            LOOPBACK,
            port,
            world_size,
            is_master=True,
            timeout=timeout,
            master_listen_fd=listening.detach(),
        )
        yield store, rank, world_size
    raise RuntimeError("Unable to perform re-rendezvous using the loopback method")
