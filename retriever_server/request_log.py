"""One line of JSON for each request, and its id in the answer.

A line holds what was asked for in numbers, never queries, passages or headers: no text of a user
and no key gets into the log.
"""

import json
import logging
import random
import time
from collections.abc import MutableMapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convsearch.retrieval.wire import REQUEST_ID_HEADER
from retriever_server.metrics import Metrics

PATHS = frozenset({"/retrieve", "/passages", "/livez", "/readyz", "/metrics", "/openapi.json"})
QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines; logged only where they fail."""

_log = logging.getLogger("retriever_server.requests")
_ids = random.Random()  # uuid4 asks the kernel, and a searching thread takes the interpreter then


class RequestLog:
    """ASGI middleware: names, times, counts and logs every request.

    Handlers add what they know to `scope["facts"]`.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds X-Request-ID to the answer; logs when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        facts: MutableMapping[str, object] = {}
        scope["facts"] = facts
        scope["request_id"] = request_id = f"{_ids.getrandbits(128):032x}"
        status = 500  # what the layer around this one answers where nothing was sent

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            seconds = time.monotonic() - start
            path = scope["path"] if scope["path"] in PATHS else "other"
            code = facts.pop("status", status)
            self._metrics.answered(path, code if isinstance(code, int) else status, seconds)
            if path not in QUIET_PATHS or status >= 400:
                line = {
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": path,
                    "status": code,
                    "ms": round(1000 * seconds, 1),
                    **facts,
                }
                _log.info("request", extra={"facts": line})


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """time (UTC), level, logger, message, and the facts of a request."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": super().format(record),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line)
