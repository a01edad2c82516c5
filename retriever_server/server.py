"""The door of the retrieval server: command-line flags in, a running service out.

    python3 retriever_server/server.py --index_path INDEX --trec_path QRELS --retriever_name bm25

The URL goes to stderr when the server is ready. SIGTERM and Ctrl-C end it cleanly with code 0; bad
input ends it with one sentence and code 2.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script: find the two packages of this checkout
    _ROOT = Path(__file__).resolve().parent.parent
    sys.path[0:1] = [str(_ROOT), str(_ROOT / "src")]

from convsearch.errors import ConvsearchError, DependencyError, install_command
from convsearch.files import Qrels
from convsearch.listening import check_exposure, listen
from convsearch.network.hosts import hosts_of
from convsearch.retrieval.protocol import Retriever
from convsearch.retrieval.transport import API_KEY_VARIABLE
from retriever_server.flags import parser, settings_of
from retriever_server.integrity import READ_AGAIN_S, BackgroundCheck
from retriever_server.loading import load_backend
from retriever_server.log_output import json_log
from retriever_server.settings import ServerSettings
from retriever_server.watch import IndexWatch

__all__ = ["ServerSettings", "load_backend", "main", "serve"]

SHUTDOWN_S = 20
"""Time that requests in flight get to finish after a signal."""
SWITCH_S = 0.0005
"""How long a searching thread may hold the interpreter while the event loop waits for it. A health
check waits several times, so that Python's 5 ms cost 15 ms in the 99th percentile."""
GC_OBJECTS, GC_ROUNDS = 5_000, 50
"""New objects between two looks of the garbage collector (Python: 700), and looks until it also
looks at what it has seen once (Python: 10). No thread runs meanwhile. Where hundreds of requests
are being worked on, nearly all it sees are in use: with 20,000 and 10 it stopped the server about
once a second, on a busy machine for 40 to 200 ms."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(settings: ServerSettings, *, listener: socket.socket | None = None) -> None:
    """Serves until SIGTERM or Ctrl-C. listener: a bound socket, in place of host and port."""
    host = str(listener.getsockname()[0]) if listener else settings.host
    check_exposure(
        host,
        has_key=settings.api_key is not None,
        allowed=settings.allow_unauthenticated,
        key_variable=API_KEY_VARIABLE,
    )
    listener = listener or listen(settings.host, settings.port)
    with json_log(settings.log_path) as log:
        searching = _run(settings, listener)
    # an engine call that no signal reaches, or a log that nobody reads: the interpreter would
    # wait for either
    if not log.finish() or searching:
        os._exit(0)


def _run(settings: ServerSettings, listener: socket.socket) -> bool:
    """Returns whether an engine call was still running at the end."""
    named = {settings.name: settings, **settings.further}
    # made first: what is opened must be what is watched
    watch = IndexWatch({name: one.watched for name, one in named.items()})
    if settings.sharding is None:
        backend, qrels = load_backend(settings)
        further = {name: load_backend(one) for name, one in settings.further.items()}
        return _answer(settings, listener, backend, qrels, further, watch)
    from retriever_server.shards.fleet import Fleet

    with Fleet(settings.sharding, deadline_s=settings.deadline_s) as fleet:
        backend, qrels = load_backend(settings, open_index=fleet.open)
        further = {
            name: load_backend(one, open_index=fleet.open) for name, one in settings.further.items()
        }
        fleet.start()
        return _answer(settings, listener, backend, qrels, further, watch)


def _answer(
    settings: ServerSettings,
    listener: socket.socket,
    backend: Retriever,
    qrels: Qrels | None,
    further: Mapping[str, tuple[Retriever, Qrels | None]],
    watch: IndexWatch,
) -> bool:
    """Answers requests until a signal; returns as `_run`."""
    try:
        from convsearch.network.service import ServiceOptions, run_service, url_of
        from retriever_server.answers import error_form
        from retriever_server.app import create_app
        from retriever_server.corpora import Corpus
        from retriever_server.limits import Limits
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run {install_command('retriever')}"
        ) from None
    watch.settle()
    sys.setswitchinterval(SWITCH_S)
    app = create_app(
        backend,
        qrels=qrels,
        name=settings.name,
        further={name: Corpus(engine, golds) for name, (engine, golds) in further.items()},
        api_key=settings.api_key,
        limits=Limits(deadline_s=settings.deadline_s, max_in_flight=settings.max_in_flight),
        check=_check_of(settings),
        watch=watch,
        hosts=hosts_of(
            listener.getsockname()[0],
            has_key=settings.api_key is not None,
            further=(settings.host, *settings.allowed_hosts),
        ),
    )
    url = url_of(listener)

    def announce(task: asyncio.Task[object]) -> None:
        if not task.cancelled() and task.exception() is None:
            spare_the_collector()
            print(f"ready: {url}", file=sys.stderr, flush=True)

    def stop() -> None:
        app.state.stopping = True

    run_service(
        app,
        listener,
        ServiceOptions(error_form=error_form, shutdown_s=SHUTDOWN_S, own_log=False),
        on_started=lambda: app.state.first_queries.add_done_callback(announce),
        on_signal=stop,
    )
    return app.state.searching()


def _check_of(settings: ServerSettings) -> BackgroundCheck:
    """Of all indexes; where they were read before serving, it begins with the rest."""
    named = {settings.name: settings, **settings.further}
    folders = {name: one.folders for name, one in named.items()}
    return BackgroundCheck(folders, again_s=READ_AGAIN_S, is_read=settings.verify)


def spare_the_collector() -> None:
    """What is loaded by now stays, so the garbage collector need not visit it again: 160,000
    objects of libraries, 70 ms of a processor, and no thread runs meanwhile, health checks
    included."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, GC_ROUNDS)


def _die_with(parent_pid: int) -> None:
    """Linux: asks the kernel to end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it ended before the request reached the kernel
            raise SystemExit(0)


def _leave(*_: object) -> None:
    raise SystemExit(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Errors meant for people become one sentence on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _leave)  # while the index is loading; `serve` has its own
    options = parser().parse_args(argv)
    if options.parent_pid is not None:
        _die_with(options.parent_pid)
    listener = socket.socket(fileno=options.fd) if options.fd is not None else None
    try:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C while the index is still loading
            serve(settings_of(options), listener=listener)
    except ConvsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
