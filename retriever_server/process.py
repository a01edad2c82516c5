"""The server as a child process: on a free port, ready when `start` returns, gone at the end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

from convsearch.errors import RetrieverError
from convsearch.network.clients import http_client
from convsearch.retrieval.transport import explain

READY_TIMEOUT_S = 180.0
"""Loading the index and the first query: seconds, more on a busy laptop."""
STOP_TIMEOUT_S = 10.0
"""Between asking the server to end and ending it."""
_DOOR = Path(__file__).with_name("server.py")
_TAIL_LINES = 20
_POLL_S = 0.25
_ATTEMPT_S = 5.0
"""Longest wait for one answer about readiness, so that the end of the process is seen."""


class ServerProcess:
    """Runs the server for as long as the `with` block.

        with ServerProcess() as server:
            url = server.start(index_dir, qrels_path, log_path)

    The child is in a session of its own, so Ctrl-C reaches only the caller, who ends the block. On
    Linux it also dies with the thread that started it, so start it from one that lives as long as
    it is needed (the main thread does).
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log_path: Path | None = None

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(
        self,
        index_dir: Path,
        qrels_path: Path | None,
        log_path: Path,
        *,
        encoder_path: Path | None = None,
        flags: Sequence[str] = (),
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> str:
        """`launch` and `wait_ready`; where that raises, the server is stopped."""
        url = self.launch(index_dir, qrels_path, log_path, encoder_path=encoder_path, flags=flags)
        try:
            self.wait_ready(url, ready_timeout_s)
        except BaseException:
            self.stop()
            raise
        return url

    def launch(
        self,
        index_dir: Path,
        qrels_path: Path | None,
        log_path: Path,
        *,
        encoder_path: Path | None = None,
        flags: Sequence[str] = (),
    ) -> str:
        """Starts the server on a free loopback port and returns its URL, on which it answers later.

        flags: further ones of `server.py`.
        """
        if self.pid is not None:
            raise RetrieverError("this server is running already; stop it first")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(_DOOR), "--index_path", str(index_dir)]
        if qrels_path is not None:
            command += ["--trec_path", str(qrels_path)]
        if encoder_path is not None:
            command += ["--encoder_path", str(encoder_path)]
        with socket.socket() as listener, log_path.open("wb") as log:
            # the child inherits the bound socket: nobody can take the port in between
            listener.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._process = subprocess.Popen(
                [
                    *command,
                    *flags,
                    "--fd",
                    str(listener.fileno()),
                    "--parent_pid",
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        self._log_path = log_path
        return url

    def wait_ready(self, url: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns once the server can answer queries.

        Raises RetrieverError with the end of the log where it ends, is not ready in time, or names
        a reason that lasts: 503 without Retry-After.
        """
        deadline = time.monotonic() + timeout_s
        reason = "it did not answer"
        with http_client(url, direct=True) as client:
            while self.pid is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RetrieverError(
                        f"the retrieval server was not ready within {timeout_s:g} s ({reason})"
                        f"{self._tail()}"
                    )
                try:
                    response = client.get(f"{url}/readyz", timeout=min(left, _ATTEMPT_S))
                except httpx.TransportError as error:
                    reason = str(error) or type(error).__name__
                else:
                    if response.status_code == httpx.codes.OK:
                        return
                    reason = f"it answered {response.status_code}: {explain(response)}"
                    if (
                        response.status_code == httpx.codes.SERVICE_UNAVAILABLE
                        and "Retry-After" not in response.headers
                    ):
                        raise RetrieverError(
                            f"the retrieval server cannot become ready ({reason}){self._tail()}"
                        )
                time.sleep(min(_POLL_S, left))
        code = self._process.returncode if self._process else None
        raise RetrieverError(f"the retrieval server ended with code {code}{self._tail()}")

    def stop(self) -> None:
        """Ends the server: asks, waits, then kills. Does nothing where none runs."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def _tail(self) -> str:
        if self._log_path is None or not self._log_path.is_file():
            return ""
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = "\n".join(lines[-_TAIL_LINES:]) or "(empty)"
        return f"; end of its log {self._log_path}:\n{shown}"
