"""Connections of uvicorn with a bound on each thing a client may leave unfinished.

uvicorn waits without end for the head of a request, keeps as much of it as comes, and answers no
accept once the open files are used up. Here a head has a size and a time; a body that goes on after
the answer, and an answer that nobody takes, have a time; and one connection too many takes the
place of an idle one.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from convsearch.network.limits import ConnectionLimits

ErrorBody = Callable[[int, str], bytes]
"""JSON of an error, of status and sentence."""
_SWEEP_S = 0.5
_REFUSED = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
BAD_REQUEST = "this is not a request that HTTP/1.1 knows; send one with a client for HTTP"


class Connections:
    """Those of one service. Use it from the thread of its event loop."""

    def __init__(self, limits: ConnectionLimits, error_body: ErrorBody) -> None:
        self.limits = limits
        self.error_body = error_body
        self._open: set[Connection] = set()
        self._silent: dict[Connection, None] = {}
        """That never asked, the longest waiting first."""
        self._idle: dict[Connection, None] = {}
        """That were answered, the longest idle first."""
        self._sweeping = False

    def enter(self, one: "Connection") -> bool:
        """Counts a new connection; False where there is no room for it."""
        self._open.add(one)
        if not self._sweeping:
            self._sweeping = True
            one.loop.call_later(_SWEEP_S, self._sweep, one.loop)
        if len(self._open) > self.limits.max_connections:
            oldest = next(iter(self._silent or self._idle), None)
            if oldest is None:
                return False
            oldest.drop()
        self._silent[one] = None
        return True

    def leave(self, one: "Connection") -> None:
        """It is closed."""
        self._open.discard(one)
        self.busy(one)

    def busy(self, one: "Connection") -> None:
        """It waits for an answer, and keeps its place."""
        self._silent.pop(one, None)
        self._idle.pop(one, None)

    def idle(self, one: "Connection") -> None:
        """It was answered."""
        if one in self._open:
            self._idle[one] = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in list(self._open):
            one.look(now)
        self._sweeping = bool(self._open)
        if self._sweeping:
            loop.call_later(_SWEEP_S, self._sweep, loop)


class HeadTooLargeError(Exception):
    """Ends the parsing of a request."""


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        among: Connections,
    ) -> None:
        """among: those of its service; the rest is uvicorn's."""
        super().__init__(config, server_state, app_state, _loop)
        self._among = among
        self._limits = among.limits
        self._head_since: float | None = self.loop.time()
        """When a head began that is not complete; None where none is awaited."""
        self._answered_at: float | None = None
        self._in_body = False
        self._unparsed = 0
        """Bytes that came since the parser last completed anything."""
        self._moved = False
        self._refusal: tuple[int, str] = (400, BAD_REQUEST)
        self._unread, self._unread_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes its place, or is refused."""
        super().connection_made(transport)
        if not self._among.enter(self):
            sentence = "all connections of this server are being answered; try again in a second"
            self._refusal = (503, sentence)
            self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place back."""
        self._among.leave(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Closes it for another; what was written and not read is lost."""
        self._among.busy(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser so much at a time that an unfinished head stays within its bound."""
        if self._head_since is None and not self._in_body:
            self._head_since = self.loop.time()
        step = self._limits.max_head_bytes
        for start in range(0, len(data), step):
            if self.transport.is_closing():
                return
            piece = data if len(data) <= step else data[start : start + step]
            self._moved = False
            super().data_received(piece)
            self._unparsed = 0 if self._moved else self._unparsed + len(piece)
            if self._unparsed > step and not self.transport.is_closing():
                self._refuse_head()
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """The head of a request begins."""
        super().on_message_begin()
        self._in_body = False
        if self._head_since is None:
            self._head_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those of a trailer, behind the body, are dropped."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete; raises HeadTooLargeError."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.max_head_bytes or len(self.headers) > self._limits.max_headers:
            self._refuse_head()
            raise HeadTooLargeError
        self._moved = self._in_body = True
        self._head_since = self._answered_at = None
        self._among.busy(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._moved = True
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is written."""
        super().on_response_complete()
        if self._is_answered:
            self._answered_at = self.loop.time()
            if self._head_since is not None:  # of the next request, which waited meanwhile
                self._head_since = self._answered_at
            self._among.idle(self)

    def send_400_response(self, msg: str) -> None:
        """Answers what uvicorn's parser or we do not take, in the words of the service."""
        status, sentence = self._refusal
        if self.cycle is None or not self.cycle.response_started or self._is_free:
            body = self._among.error_body(status, sentence)
            self.transport.write(STATUS_LINE[status] + _REFUSED % len(body) + body)
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection is closed, one whose answer is still being read is not."""
        if self.transport.get_write_buffer_size():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def look(self, now: float) -> None:
        """Closes it where a time is over."""
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_since = unread, now
        if unread:
            if now - self._unread_since > self._limits.unread_s:
                self.transport.abort()
        elif self._is_answered and not self.transport.is_closing():
            begun, answered = self._head_since, self._answered_at
            late_head = begun is not None and now - begun > self._limits.head_s
            late_rest = answered is not None and now - answered > self._limits.rest_s
            if late_head or (self._in_body and late_rest):
                self.transport.close()

    @property
    def _is_answered(self) -> bool:
        """Whether no request of it is being worked on."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _is_free(self) -> bool:
        """Whether nothing of an answer or of a body is under way."""
        return self._is_answered and not self._in_body

    def _refuse_head(self) -> None:
        limits = self._limits
        self._refusal = (
            431,
            f"the request line and its headers are larger than {limits.max_head_bytes} bytes, or "
            f"more than {limits.max_headers}; send fewer and shorter ones",
        )
