"""A server of files that misbehaves on purpose: ranges, cut connections, wrong bytes, 404."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file and what goes wrong with it."""

    content: bytes
    drop_after: int | None = None
    """Closes the connection after that many bytes of each answer."""
    drops: int = 1_000_000
    """How many answers are cut like that."""
    status: int | None = None
    """Answers only this."""
    statuses: list[int] = field(default_factory=list[int])
    """Answers these first, one each."""
    answers: int = 1_000_000
    """Says 403 after so many."""
    ranges: bool = True
    """Whether it knows Range."""
    versioned: bool = True
    """Whether it sends an ETag."""
    html: bool = False
    """Answers with a web page."""
    length: int | None = None
    """Claims another length than it has."""
    stall: threading.Event | None = None
    """Waits for this after `drop_after` bytes, instead of closing."""


@dataclass
class Request:
    """One request as the server saw it."""

    path: str
    range: str | None


class FaultyFiles:
    """Running server; `files` may be changed while it runs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.reached = threading.Event()
        """Set when an answer was cut or stalled."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def ranges(self, name: str) -> list[str | None]:
        return [r.range for r in self.requests if r.path == f"/{name}"]


@contextmanager
def faulty_files() -> Iterator[FaultyFiles]:
    """Serves on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.requests.append(Request(self.path, self.headers.get("Range")))
            served = state.files.get(self.path.lstrip("/"))
            if served is None:
                return self.short(404)
            if served.statuses:
                return self.short(served.statuses.pop(0))
            served.answers -= 1
            if served.status is not None or served.answers < 0:
                return self.short(served.status or 403)
            if served.html:
                return self.short(200, "text/html; charset=utf-8")
            return self.send_file(served)

        def short(self, status: int, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def send_file(self, served: Served) -> None:
            etag = f'"{hashlib.sha256(served.content).hexdigest()[:12]}"'
            start = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") == etag
            if asked and same and served.ranges:
                start = int(asked[1])
                if start >= len(served.content):
                    return self.short(416)
                self.send_response(206)
                last = len(served.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(served.content)}")
            else:
                self.send_response(200)
            body = served.content[start:]
            self.send_header("Content-Length", str(served.length or len(body)))
            if served.versioned:
                self.send_header("ETag", etag)
            self.end_headers()
            if served.drop_after is not None and served.drops > 0:
                served.drops -= 1
                self.wfile.write(body[: served.drop_after])
                self.wfile.flush()
                state.reached.set()
                if served.stall is not None:
                    served.stall.wait()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return None
            self.wfile.write(body)
            if served.length is not None:
                self.close_connection = True
            return None

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    state = FaultyFiles(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
