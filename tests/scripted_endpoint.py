"""A chat endpoint on loopback that answers each request as a test says, in bytes if need be."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = "<think>a</think>\n<rewrite>Kallsund ferry cost</rewrite>"


@dataclass(kw_only=True)
class Reply:
    """What goes back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None
    """bytes as they are, anything else as JSON; None is a good completion."""


def completion(content: object = GOOD, *, usage: object = None, **message: object) -> object:
    """A chat completion; further fields go into the message."""
    said = {"role": "assistant", "content": content, **message}
    return {"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage or {}}


@dataclass(kw_only=True)
class Seen:
    """What arrived."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)


@contextmanager
def scripted(reply: Callable[[dict, int], Reply], *, date: str | None = None) -> Iterator[Seen]:
    """Serves until the block ends. reply: is given the body, and how many requests there were
    before it. date: the server's clock, as its headers tell it."""
    seen = Seen()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(seen.bodies)
                seen.bodies.append(body)
                seen.paths.append(self.path)
            made = reply(body, number)
            said = completion() if made.body is None else made.body
            out = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(made.status)
            for name, value in {**made.headers, "content-length": str(len(out))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(out)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return date or super().date_time_string(timestamp)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
