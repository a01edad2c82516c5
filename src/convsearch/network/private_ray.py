"""A Ray of this machine alone: on loopback, with a token of its own.

Ray's daemons and workers listen on the network address and run any pickle that is sent to them.
"""

import secrets

from convsearch.listening import LOOPBACK


def private_ray() -> dict[str, str]:
    """Variables for the process that starts Ray, set before it imports ray; its workers inherit
    them. Each call draws another token."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray take 127.0.0.1 for its address
    }


def close_serve_port() -> None:
    """In a process of Ray Serve, before its replica is ready: the port that other deployments ask,
    which Serve opens on all addresses, without the token, is opened on loopback."""
    from ray.serve._private import replica

    name = "add_port_to_grpc_server"
    original = getattr(replica, name)
    setattr(replica, name, lambda server, to: original(server, to.replace("[::]", LOOPBACK)))
