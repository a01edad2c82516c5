"""The rewriter service over any inference engine."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from convsearch.errors import ConvsearchError, DataError, DependencyError
from convsearch.files import parse_turn
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.network.hosts import HostCheck, Hosts
from convsearch.prompts import parse_response, rewrite_messages
from convsearch.serving.batching import GenerationQueue
from convsearch.serving.completions import completion, completion_events
from convsearch.serving.gate import Gate, error_body, foreign
from convsearch.serving.settings import ServingSettings
from convsearch.serving.wire import ChatRequest, ErrorAnswer, RewriteAnswer, RewriteRequest
from convsearch.types import ChatMessage, Turn, derive_seed

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)
API_VERSION = "1"
ERRORS = (400, 401, 403, 404, 413, 503, 504)


class Refused(Exception):
    """A request that gets an error: status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Rewriter:
    """What the routes do, without HTTP."""

    def __init__(self, engine: Engine, settings: ServingSettings) -> None:
        self.queue = GenerationQueue(engine, max_batch=settings.max_batch)
        self.settings = settings

    async def chat(self, asked: ChatRequest) -> list[Generation]:
        """The responses to a chat. Raises Refused."""
        settings = self.settings
        if asked.model != settings.model:
            raise Refused(404, f"model {asked.model!r} is not here; {settings.model!r} is")
        if asked.n > settings.max_n:
            raise Refused(400, f"n: at most {settings.max_n} responses, got {asked.n}")
        params = self._params(
            asked.temperature, asked.top_p, asked.max_completion_tokens or asked.max_tokens
        )
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        # the first has the seed as it was sent: the same draw as the engine's own
        seeds = [seed, *(derive_seed(seed, "n", i) for i in range(1, asked.n))]
        chat = [message.as_chat_message() for message in asked.messages]
        found = await self._generate([chat] * asked.n, params, seeds)
        for generation in found:
            if generation.error is not None:
                raise Refused(400, f"the model has no answer to this chat: {generation.error}")
        return found

    async def rewrite(self, asked: RewriteRequest) -> RewriteAnswer:
        """The query for a question. Raises Refused where the request or the engine is at fault; a
        response that cannot be used is an answer, with the raw question as query."""
        settings = self.settings
        turn = _turn_of(asked)
        chat = rewrite_messages(
            turn, settings.style, shots=settings.shots, template=settings.template
        )
        params = self._params(asked.temperature, asked.top_p, asked.max_tokens)
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        [found] = await self._generate([chat], params, [seed])
        parsed = None if found.error else parse_response(settings.style, found.text)
        return RewriteAnswer(
            query=parsed.rewrite if parsed else turn.question,
            status="failed" if found.error else "ok" if parsed else "malformed",
            rewrite=parsed.rewrite if parsed else None,
            think=parsed.think if parsed else None,
            response=found.text,
            error=found.error,
            model=settings.model,
            seed=seed,
            num_tokens=found.num_tokens,
        )

    def _params(
        self, temperature: float | None, top_p: float | None, max_tokens: int | None
    ) -> SamplingParams:
        limit = self.settings.max_tokens_limit
        if max_tokens is not None and max_tokens > limit:
            raise Refused(400, f"max_tokens: at most {limit}, got {max_tokens}")
        asked = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(self.settings.defaults, **given)

    async def _generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        deadline_s = self.settings.deadline_s
        try:
            return await asyncio.wait_for(self.queue.generate(chats, params, seeds), deadline_s)
        except asyncio.TimeoutError:
            raise Refused(504, f"not answered within {deadline_s:g} s; try again later") from None
        except ConvsearchError as error:
            log.error("the engine failed: %s", error)
            raise Refused(503, f"the engine failed: {error}") from error


def _turn_of(asked: RewriteRequest) -> Turn:
    roles = {"assistant": "agent"}
    history = [{"role": roles.get(m.role, m.role), "text": m.text} for m in asked.history]
    record: dict[str, object] = {
        "qid": "request",
        "conv_id": "request",
        "turn": len(history) // 2 + 1,
        "split": "serve",
        "question": asked.question,
        "history": history,
    }
    try:
        return parse_turn(record, "the request")
    except DataError as error:
        raise Refused(400, str(error)) from None


def create_app(
    engine: Engine, settings: ServingSettings, *, hosts: Hosts | None = None
) -> "FastAPI":
    """The service. hosts: by which it may be asked; None takes every name. `app.state.rewriter` is
    what works behind it. Raises DependencyError."""
    try:
        from fastapi import FastAPI, Request
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse, Response, StreamingResponse
        from starlette.exceptions import HTTPException
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run pip install 'convsearch[retriever]'"
        ) from None
    rewriter = Rewriter(engine, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        rewriter.queue.close()

    app = FastAPI(
        title="convsearch rewriter", version=API_VERSION, lifespan=lifespan, docs_url=None,
        redoc_url=None,
        responses={status: {"model": ErrorAnswer} for status in ERRORS},
    )  # fmt: skip
    app.state.rewriter = rewriter
    # added last, so the names are looked at first; pyright does not know plain ASGI here
    app.add_middleware(Gate, settings=settings)  # pyright: ignore[reportArgumentType]
    app.add_middleware(HostCheck, hosts=hosts, refuse=foreign)  # pyright: ignore[reportArgumentType]

    def refusal(status: int, message: str) -> JSONResponse:
        headers = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse(error_body(status, message), status, headers=headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, refused: Refused) -> Response:
        return refusal(refused.status, str(refused))

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, failure: RequestValidationError) -> Response:
        first = failure.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        said = "is not known here; leave it out" if first["type"] == "extra_forbidden" else None
        return refusal(400, f"{where}: {said or first['msg'].removeprefix('Value error, ')}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, failure: HTTPException) -> Response:
        if failure.status_code in (404, 405):
            said = f"{request.method} {request.url.path} does not exist; POST /rewrite does"
            return refusal(failure.status_code, said)
        return refusal(failure.status_code, str(failure.detail))

    @app.exception_handler(Exception)
    async def defect(_: Request, failure: Exception) -> Response:
        return refusal(500, f"internal error ({type(failure).__name__}); see the server's log")

    @app.get("/health")
    async def health() -> Response:
        failure = rewriter.queue.failure
        said = {"status": "failing" if failure else "ok", "model": settings.model}
        return JSONResponse(said, 503 if failure else 200)

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        card = {"id": settings.model, "object": "model", "created": 0, "owned_by": "convsearch"}
        return {"object": "list", "data": [card]}

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest) -> Response:
        found = await rewriter.chat(asked)
        if not asked.stream:
            return JSONResponse(completion(settings.model, found, asked.stops))
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        events = completion_events(settings.model, found, asked.stops, with_usage=with_usage)
        return StreamingResponse(events, media_type="text/event-stream")

    @app.post("/rewrite")
    async def rewrite(asked: RewriteRequest) -> RewriteAnswer:
        return await rewriter.rewrite(asked)

    return app
