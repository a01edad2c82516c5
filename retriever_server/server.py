"""The door of the retrieval server: command-line flags in, a running service out.

    python3 retriever_server/server.py --index_path INDEX --trec_path QRELS --retriever_name bm25

The URL goes to stderr when the server is ready. SIGTERM and Ctrl-C end it cleanly with code 0; bad
input ends it with one sentence and code 2.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script: find the two packages of this checkout
    _ROOT = Path(__file__).resolve().parent.parent
    sys.path[0:1] = [str(_ROOT), str(_ROOT / "src")]

from convsearch.errors import ConfigError, ConvsearchError, DependencyError
from retriever_server.loading import RETRIEVERS, load_backend
from retriever_server.settings import DEFAULT_HOST, DEFAULT_PORT, ServerSettings

SHUTDOWN_S = 20
"""Time that requests in flight get to finish after a signal."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(settings: ServerSettings, *, listener: socket.socket | None = None) -> None:
    """Serves until SIGTERM or Ctrl-C. listener: a bound socket, in place of host and port."""
    listener = listener or _bind(settings.host, settings.port)
    backend, qrels = load_backend(settings)
    try:
        import uvicorn

        from retriever_server.app import create_app
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run pip install 'convsearch[retriever]'"
        ) from None
    app = create_app(backend, qrels=qrels)
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    class AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            self_query: asyncio.Task[object] = app.state.self_query
            self_query.add_done_callback(_announce)

    def _announce(task: asyncio.Task[object]) -> None:
        if not task.cancelled() and task.exception() is None:
            print(f"ready: {url}", file=sys.stderr, flush=True)

    # uvicorn raises the signal again when it is done; these handlers make that a quiet end
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S
    )
    AnnouncingServer(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error}); choose another --host or --port"
        ) from None
    return listener


def _die_with(parent_pid: int) -> None:
    """Linux: asks the kernel to end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it ended before the request reached the kernel
            raise SystemExit(0)


def _leave(*_: object) -> None:
    raise SystemExit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="Serve ranks and passages over HTTP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--index_path", type=Path, required=True, help='folder made by "convsearch index"')
    add("--trec_path", type=Path, help="qrels of the query ids that clients send")
    add("--retriever_name", choices=RETRIEVERS, help="checked against the index")
    add("--encoder_path", type=Path, help="folder of the query encoder (dense)")
    add("--host", default=DEFAULT_HOST, help="address to listen on; there is no authentication")
    add("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    add("--fd", type=int, help=argparse.SUPPRESS)
    add("--parent_pid", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Errors meant for people become one sentence on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _leave)  # while the index is loading; `serve` has its own
    options = vars(_parser().parse_args(argv))
    descriptor, parent_pid = options.pop("fd"), options.pop("parent_pid")
    if parent_pid is not None:
        _die_with(parent_pid)
    listener = socket.socket(fileno=descriptor) if descriptor is not None else None
    try:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C while the index is still loading
            serve(ServerSettings(**options), listener=listener)
    except ConvsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
