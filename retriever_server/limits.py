"""What one request, and all of them together, may cost. ASGI middlewares for the searching paths;
health checks and metrics pass by."""

import asyncio
import contextlib
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convsearch.retrieval.wire import MAX_BODY_BYTES, MAX_QUERIES
from retriever_server.answers import error
from retriever_server.metrics import Metrics
from retriever_server.settings import DEFAULT_DEADLINE_S, DEFAULT_MAX_IN_FLIGHT
from retriever_server.turns import Turns

WORK_PATHS = frozenset({"/retrieve", "/passages"})
GONE = 499
"""In log and metrics, the status of a request whose client hung up (nginx's number)."""
REFUSALS_PER_PASS = 16
"""Refusals between two looks at the sockets."""
_RETRY_AFTER = {"Retry-After": "1"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond these the server refuses."""

    max_body_bytes: int = MAX_BODY_BYTES
    """Of one request; more is 413."""
    max_bodies_bytes: int = 256 * 1024 * 1024
    """Of all requests being worked on, together; more is 503. A body takes 2.3 times its size in
    memory, more where its texts are not ASCII. 512 requests of half a megabyte fit."""
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    """Requests being worked on; more is 503, which the clients of verl and SkyRL try again (429
    is final for them)."""
    deadline_s: float = DEFAULT_DEADLINE_S
    """Of one request; later is 504."""
    max_batch_queries: int = MAX_QUERIES
    """Queries of one engine call that serves several requests."""


class BodyLimit:
    """Answers 413 where a request body is larger than `max_bytes`, before it is in memory, and 503
    where the bodies of all requests being worked on would be larger than `max_bodies_bytes`."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, max_bodies_bytes: int, metrics: Metrics
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bodies_bytes = max_bodies_bytes
        self._metrics = metrics
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the declared length at once, and what really comes as it comes. A declared length
        has its room from the beginning, so that what was admitted is also read to its end; all is
        given back when the request is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = dict(scope["headers"]).get(b"content-length", b"0")
        declared = int(header) if header.isdigit() else 0
        if refusal := self._refusal(declared, declared):
            await error(refusal.status_code, refusal.detail, headers=refusal.headers)(
                scope, receive, send
            )
            return
        received, held = 0, declared
        self._hold(declared)

        async def counted() -> Message:
            nonlocal received, held
            message = await receive()
            received += len(message.get("body", b""))
            more = max(0, received - held)
            if refusal := self._refusal(received, more):
                raise refusal  # which FastAPI lets through while it reads
            self._hold(more)
            held += more
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._hold(-held)

    def _refusal(self, size: int, more: int) -> HTTPException | None:
        """Why a body of this size, `more` of it not held yet, is not read; None where it is."""
        if size > self._max_bytes:
            self._metrics.rejected("body")
            return HTTPException(
                413,
                f"the request is larger than {self._max_bytes} bytes; send fewer queries at once",
            )
        if more and self._held_bytes + more > self._max_bodies_bytes:
            self._metrics.rejected("bodies")
            return HTTPException(
                503,
                f"requests of {self._held_bytes} bytes are being worked on and "
                f"{self._max_bodies_bytes} are admitted; try again in a second",
                headers=_RETRY_AFTER,
            )
        return None

    def _hold(self, num_bytes: int) -> None:
        self._held_bytes += num_bytes
        self._metrics.body_bytes.set(self._held_bytes)


class InFlightLimit:
    """Answers 503 at once where too many requests are being worked on, or the server stops."""

    def __init__(self, app: ASGIApp, *, max_in_flight: int, metrics: Metrics) -> None:
        self._app = app
        self._refusals = Turns(REFUSALS_PER_PASS)  # which do not wait for admitted work
        self._max_in_flight = max_in_flight
        self._metrics = metrics
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on while there is room."""
        if scope["type"] != "http" or scope["path"] not in WORK_PATHS:
            await self._app(scope, receive, send)
            return
        if scope["app"].state.stopping:
            await self._refuse("stopping", "the server is stopping", scope, receive, send)
            return
        if self._in_flight >= self._max_in_flight:
            sentence = f"{self._max_in_flight} requests are being worked on; try again in a second"
            await self._refuse("overload", sentence, scope, receive, send)
            return
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)

    async def _refuse(
        self, reason: str, sentence: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await self._refusals.take()
        self._metrics.rejected(reason)
        await error(503, sentence, headers=_RETRY_AFTER)(scope, receive, send)


class Deadline:
    """Answers 504 where a request takes too long, and stops working for a client that hung up.

    Both cancel the handler, which takes the request out of the queue.
    """

    def __init__(self, app: ASGIApp, *, deadline_s: float, turns: Turns, metrics: Metrics) -> None:
        """turns: that requests take before anything is done for them."""
        self._app = app
        self._turns = turns
        self._deadline_s = deadline_s
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The clock starts before the body is read, so a slow sender is cut off as well; and
        before the turn, whose wait costs next to nothing: a refusal that comes after hundreds of
        admitted requests waits until each of them is in line."""
        if scope["type"] != "http" or scope["path"] not in WORK_PATHS:
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline_s
        await self._turns.take()
        inbox: asyncio.Queue[Message] = asyncio.Queue(1)
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        async def listen() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                await inbox.put(message)

        work = asyncio.ensure_future(self._app(scope, inbox.get, sent))
        line = asyncio.ensure_future(listen())
        try:
            await asyncio.wait(
                {work, line}, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if work.done() or started:
                await work
            elif line.done():
                self._metrics.rejected("gone")
                scope["facts"]["status"] = GONE
                line.result()
            else:
                self._metrics.rejected("deadline")
                await _cancel(work)
                sentence = f"not answered within {self._deadline_s:g} s; send fewer queries at once"
                await error(504, sentence)(scope, receive, send)
        finally:
            await _cancel(work)
            await _cancel(line)


async def _cancel(task: "asyncio.Future[None]") -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
