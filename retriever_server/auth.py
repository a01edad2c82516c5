"""The API key: sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from retriever_server.answers import error
from retriever_server.metrics import Metrics

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Health checks need no key: those who ask seldom have one."""
_BEARER = b"bearer "


class ApiKey:
    """ASGI middleware: answers 401 to requests without the key. The key is never logged."""

    def __init__(self, app: ASGIApp, *, key: str | None, metrics: Metrics) -> None:
        """key: None lets everybody in."""
        self._app = app
        self._key = key.encode() if key is not None else None
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on what carries the key, and the health checks."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._admits(scope):
            await self._app(scope, receive, send)
            return
        self._metrics.rejected("key")
        sentence = 'this server needs its API key, as "Authorization: Bearer KEY" or "X-API-Key"'
        answer = error(401, sentence, headers={"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        if self._key is None:
            return True
        headers = dict(scope["headers"])
        bearer = headers.get(b"authorization", b"")
        sent = [headers.get(b"x-api-key", b"")]
        if bearer[: len(_BEARER)].lower() == _BEARER:
            sent.append(bearer[len(_BEARER) :].strip())
        # compare_digest takes as long for a wrong key as for a nearly right one
        return any(hmac.compare_digest(key, self._key) for key in sent)
