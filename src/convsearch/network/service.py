"""Runs an ASGI app on a socket until a signal: uvicorn as both services use it."""

import asyncio
import functools
import json
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from convsearch.listening import in_url
from convsearch.network.connections import Connection, Connections
from convsearch.network.hosts import App
from convsearch.network.limits import (
    ACCEPTED_AT_ONCE,
    ConnectionLimits,
    raise_file_limit,
    room_for_connections,
)

KEEP_ALIVE_S = 75
"""Idle connections stay open longer than any client keeps them (httpx: 5 s), so that no request is
sent into one that is being closed."""
WAITING_CONNECTIONS = 2048
"""That the system holds until they are accepted."""
_BETWEEN_LINES_S = 10.0
_log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What differs between the services."""

    error_form: Callable[[int, str], Mapping[str, object]]
    """An error as JSON, of status and sentence."""
    shutdown_s: int
    """Time that requests in flight get to finish after a signal."""
    own_log: bool
    """Warnings go to stderr in uvicorn's form; otherwise logging stays as it is."""
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    """Of the clients."""


def url_of(listener: socket.socket) -> str:
    """Where it is asked."""
    host, port = listener.getsockname()[:2]
    return f"http://{in_url(host)}:{port}"


def run_service(
    app: App,
    listener: socket.socket,
    options: ServiceOptions,
    *,
    on_started: Callable[[], None],
    on_signal: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or Ctrl-C. on_started: called in the event loop once requests are
    answered; on_signal: called at once, requests in flight go on."""
    limits = options.connections
    room = room_for_connections(limits.max_connections, raise_file_limit())
    connections = Connections(
        replace(limits, max_connections=room),
        lambda status, sentence: json.dumps(options.error_form(status, sentence)).encode(),
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            asyncio.get_running_loop().set_exception_handler(AcceptErrors())
            await super().startup(sockets=sockets)
            listener.listen(WAITING_CONNECTIONS)
            on_started()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            on_signal()
            super().handle_exit(sig, frame)

    # uvicorn raises the signal again when it is done; these handlers make that a quiet end
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType] - plain ASGI
        http=functools.partial(Connection, among=connections),  # pyright: ignore[reportArgumentType]
        ws="none",
        log_config=LOGGING_CONFIG if options.own_log else None,
        log_level="warning" if options.own_log else None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        backlog=ACCEPTED_AT_ONCE,  # asyncio takes so many at once; see `listen` above
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=options.shutdown_s,
    )
    Server(config).run(sockets=[listener])


class AcceptErrors:
    """Handler of an event loop: a line every ten seconds for connections that the system does not
    give, which asyncio logs with a traceback each, thousands a second. The rest is asyncio's."""

    def __init__(self) -> None:
        self._count = 0
        self._next_line = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """See `loop.set_exception_handler`."""
        if "accept" not in context.get("message", "") or "socket" not in context:
            loop.default_exception_handler(context)
            return
        self._count += 1
        if (now := time.monotonic()) >= self._next_line:
            self._next_line = now + _BETWEEN_LINES_S
            sentence = "%d connections could not be accepted (%s); free open files or memory"
            _log.error(sentence, self._count, context.get("exception"))
            self._count = 0
