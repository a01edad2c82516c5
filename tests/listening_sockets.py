"""What the processes of a running training listen on."""

import contextlib
import threading
import time
from collections.abc import Iterable
from types import TracebackType

import psutil

from convsearch.listening import is_loopback

EVERY_S = 0.5


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Processes whose environment has the variable with this value."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value:
                found.append(process)
    return found


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, str]]:
    """(address, name of the process) of every TCP socket that is listened on and every UDP socket
    that is bound."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            for connection in process.net_connections("inet"):
                if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and connection.laddr:
                    address = connection.laddr.ip.removeprefix("::ffff:")  # IPv4 on an IPv6 socket
                    found.add((address, process.name()))
    return found


class SocketWatch:
    """Looks again and again, in a thread, at the processes with this in their environment."""

    def __init__(self, variable: str, value: str) -> None:
        self.seen: set[tuple[str, str]] = set()
        self._which = (variable, value)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "SocketWatch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def beyond_loopback(self) -> set[tuple[str, str]]:
        """What others on the network reach."""
        return {(address, name) for address, name in self.seen if not is_loopback(address)}

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            self.seen |= listening(processes_with(*self._which))
            self._stop.wait(max(EVERY_S, 2 * (time.monotonic() - started)))
