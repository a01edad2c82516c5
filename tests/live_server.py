"""The service over real HTTP: an app in a thread of the test process, or the door as a process."""

import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp

from retriever_server.server import main

ROOT = Path(__file__).resolve().parents[1]
DOOR = [sys.executable, "retriever_server/server.py"]
START_S = 180


@contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server started from the root of the repository, with its URL once it says it is ready."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.fullmatch(r"ready: (http://\S+)\n", line):
                yield process, found[1]
                return
        code = process.wait(START_S)
        pytest.fail(f"the server ended with {code} before it was ready: {''.join(said)}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stderr.close()


@contextmanager
def door(*flags: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python3 retriever_server/server.py` with these flags."""
    with started([*DOOR, *flags, "--port", str(port)]) as found:
        yield found


def until(condition: Callable[[], bool], what: str) -> None:
    """Returns once it holds. No test is faster for giving up soon, and a busy machine is slow."""
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {START_S} s for {what}"
        time.sleep(0.01)


def refusal(flags: list[str]) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of the door with flags that it refuses, in this process: a
    process of its own takes seconds for its imports."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(flags)
    finally:
        signal.signal(signal.SIGTERM, before)
    return ended.value.code, out.getvalue(), err.getvalue()


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Yields the URL of a running server; stops it at the end of the block."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not server.started:
                assert time.monotonic() < deadline, "the test server did not start"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
