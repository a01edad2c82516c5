"""Refuses requests that are too large before they are in memory."""

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: answers 413 where a request body is larger than `max_bytes`."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the declared length at once, and what really comes as it comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sentence = f"the request is larger than {self._max_bytes} bytes; send fewer queries at once"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await JSONResponse({"error": sentence}, status_code=413)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, sentence)  # which FastAPI lets through while it reads
            return message

        await self._app(scope, counted, send)
