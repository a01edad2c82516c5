"""What a request passes before the service looks at it: the key, the limits. ASGI, no framework."""

import asyncio
import hmac
import json

from convsearch.network.hosts import App, Message, Receive, Scope, Send
from convsearch.serving.settings import ServingSettings

OPEN_PATHS = frozenset({"/health"})
_BEARER = b"bearer "


def error_body(status: int, message: str) -> dict[str, object]:
    """An error in OpenAI's form."""
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        503: "overloaded_error",
    }
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


class Gate:
    """Answers 401, 413 and 503 itself and hands on the rest, its body read."""

    def __init__(self, app: App, settings: ServingSettings) -> None:
        self._app = app
        self._settings = settings
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if not self._admits(scope):
            said = 'this server needs its API key, as "Authorization: Bearer KEY" or "X-API-Key"'
            await _refuse(send, 401, said, {"WWW-Authenticate": "Bearer"})
            return
        if self._in_flight >= self._settings.max_in_flight:
            said = f"{self._in_flight} requests are being worked on; try again in a second"
            await _refuse(send, 503, said, {"Retry-After": "1"})
            return
        self._in_flight += 1
        try:
            try:
                read = self._read(scope, receive)
                body = await asyncio.wait_for(read, self._settings.deadline_s)
            except asyncio.TimeoutError:
                said = f"no whole request within {self._settings.deadline_s:g} s; send it faster"
                await _refuse(send, 504, said, {"Connection": "close"})
                return
            if body is None:
                said = f"the request is larger than {self._settings.max_body_bytes} bytes"
                await _refuse(send, 413, said, {"Connection": "close"})
                return
            await self._app(scope, _replay(body, receive), send)
        finally:
            self._in_flight -= 1

    def _admits(self, scope: Scope) -> bool:
        if self._settings.api_key is None:
            return True
        headers = dict(scope["headers"])
        sent = [headers.get(b"x-api-key", b"")]
        bearer = headers.get(b"authorization", b"")
        if bearer[: len(_BEARER)].lower() == _BEARER:
            sent.append(bearer[len(_BEARER) :].strip())
        # compare_digest takes as long for a wrong key as for a nearly right one
        return any(hmac.compare_digest(key, self._settings.api_key.encode()) for key in sent)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None where it is too large, or says that it will be."""
        body = bytearray()
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            return None
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._settings.max_body_bytes:
                return None
            if not message.get("more_body"):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes after it (that the client left)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def foreign(sentence: str) -> App:
    """The answer to a request that was sent to another name."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await _refuse(send, 403, sentence, {})

    return answer


async def _refuse(send: Send, status: int, message: str, headers: dict[str, str]) -> None:
    body = json.dumps(error_body(status, message)).encode()
    sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
