"""From an open engine to a service that answers until Ctrl-C."""

import signal
import socket
import sys
from collections.abc import Callable

from convsearch.errors import DependencyError, install_command
from convsearch.infer.engine import Engine
from convsearch.infer.prompt_reader import PromptReader
from convsearch.listening import in_url
from convsearch.serving.app import create_app
from convsearch.serving.settings import ServingSettings

SHUTDOWN_S = 10
"""Time that requests in flight get to finish after a signal."""
KEEP_ALIVE_S = 75
"""Idle connections stay open longer than clients keep them."""


def serve(
    engine: Engine,
    settings: ServingSettings,
    listener: socket.socket,
    on_ready: Callable[[str], None],
    reader: PromptReader | None = None,
) -> bool:
    """Serves until SIGTERM or Ctrl-C; on_ready hears the URL. reader: see `create_app`. Returns
    whether a call into the engine still runs, for which the interpreter would wait at its end."""
    try:
        import uvicorn
    except ImportError:
        raise DependencyError(
            f"uvicorn is not installed; run {install_command('retriever')}"
        ) from None
    app = create_app(engine, settings, reader)
    host, port = listener.getsockname()[:2]

    class AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            on_ready(f"http://{in_url(host)}:{port}")

    # uvicorn raises the signal again when it is done; these handlers make that a quiet end
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    AnnouncingServer(config).run(sockets=[listener])
    sys.stderr.flush()
    return app.state.rewriter.queue.is_generating
