"""From an open engine to a service that answers until Ctrl-C."""

import socket
import sys
from collections.abc import Callable

from convsearch.errors import DependencyError, install_command
from convsearch.infer.engine import Engine
from convsearch.infer.prompt_reader import PromptReader
from convsearch.network.hosts import hosts_of
from convsearch.serving.app import create_app
from convsearch.serving.gate import error_body
from convsearch.serving.settings import ServingSettings

SHUTDOWN_S = 10
"""Time that requests in flight get to finish after a signal."""


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
        from convsearch.network.service import ServiceOptions, run_service, url_of
    except ImportError:
        raise DependencyError(
            f"uvicorn is not installed; run {install_command('retriever')}"
        ) from None
    hosts = hosts_of(
        listener.getsockname()[0],
        has_key=settings.api_key is not None,
        further=settings.allowed_hosts,
    )
    app = create_app(engine, settings, reader, hosts=hosts)
    run_service(
        app,
        listener,
        ServiceOptions(error_form=error_body, shutdown_s=SHUTDOWN_S, own_log=True),
        on_started=lambda: on_ready(url_of(listener)),
    )
    sys.stderr.flush()
    return app.state.rewriter.queue.is_generating
