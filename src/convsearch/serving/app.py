"""The rewriter service over any inference engine."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from convsearch.errors import (
    DataError,
    DependencyError,
    EngineError,
    PromptError,
    install_command,
)
from convsearch.files import parse_turn
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.infer.first_answers import Answer, FirstAnswers
from convsearch.infer.prompt_reader import PromptReader
from convsearch.network.hosts import HostCheck, Hosts
from convsearch.prompts import parse_response, with_thought
from convsearch.serving.batching import GenerationQueue, OnePromptFailed
from convsearch.serving.completions import completion, completion_events
from convsearch.serving.gate import Gate, error_body, foreign
from convsearch.serving.settings import ServingSettings
from convsearch.serving.wire import ChatRequest, ErrorAnswer, RewriteAnswer, RewriteRequest
from convsearch.types import ChatMessage, Turn, derive_seed

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)
API_VERSION = "1"
_SEND = 'send one JSON object, with "Content-Type: application/json"'
ERRORS = (400, 401, 403, 404, 413, 500, 503, 504)


class Refused(Exception):
    """A request that gets an error: status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RewriterService:
    """What the routes do, without HTTP."""

    def __init__(
        self, engine: Engine, settings: ServingSettings, reader: PromptReader | None
    ) -> None:
        self.queue = GenerationQueue(engine, max_batch=settings.max_batch)
        self.settings = settings
        self._reader = reader
        self._first = FirstAnswers(
            settings.style,
            max_tokens=settings.defaults.max_tokens,
            shots=settings.shots,
            told=settings.told,
        )
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="prompts")

    def close(self) -> None:
        """Takes no more work."""
        self.queue.close()
        self._reading.shutdown(wait=False)

    async def chat(self, asked: ChatRequest) -> list[Generation]:
        """The responses to a chat. Raises Refused."""
        settings = self.settings
        if asked.model not in (settings.model, settings.also):
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
        found = await self._generate(chat, params, seeds)
        for generation in found:
            if generation.error is not None:
                raise Refused(400, f"the model has no answer to this chat: {generation.error}")
        return found

    async def rewrite(self, asked: RewriteRequest) -> RewriteAnswer:
        """The query for a question. Raises Refused where the request or the engine is at fault; a
        response that cannot be used is an answer, with the raw question as query."""
        settings = self.settings
        turn = _turn_of(asked)
        chat = settings.messages(turn)
        params = self._params(asked.temperature, asked.top_p, asked.max_tokens)
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        [found] = await self._generate(chat, params, [seed])
        response = with_thought(settings.style, found.thought, found.text)
        parsed = None if found.error else parse_response(settings.style, response)
        if not found.error and params.max_tokens >= settings.defaults.max_tokens:
            is_ok, is_cut = parsed is not None, found.is_cut
            self._first.add(Answer(text=response, is_ok=is_ok, is_cut=is_cut))
        return RewriteAnswer(
            query=parsed.rewrite if parsed else turn.question,
            status="failed" if found.error else "ok" if parsed else "malformed",
            rewrite=parsed.rewrite if parsed else None,
            think=parsed.think if parsed else None,
            response=response,
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
        self, chat: list[ChatMessage], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """A response for each seed. Raises Refused."""
        deadline_s = self.settings.deadline_s
        try:
            return await asyncio.wait_for(self._responses(chat, params, seeds), deadline_s)
        except asyncio.TimeoutError:
            raise Refused(504, f"not answered within {deadline_s:g} s; try again later") from None
        except PromptError as error:
            raise Refused(400, str(error)) from None
        except OnePromptFailed as error:
            log.error("the engine failed on one prompt: %s", error)
            raise Refused(500, f"the engine failed on this prompt alone: {error}") from None
        except EngineError as error:
            log.error("the engine failed: %s", error)
            raise Refused(503, f"the engine failed: {error}") from error

    async def _responses(
        self, chat: list[ChatMessage], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """Only a prompt that the model can be given joins a batch."""
        reader = self._reader
        if reader is not None:
            loop = asyncio.get_running_loop()
            ids = await loop.run_in_executor(self._reading, reader.ids, chat, params.max_tokens)
            if why := reader.too_long(len(ids)):
                return [Generation(error=why)] * len(seeds)
        return await self.queue.generate([chat] * len(seeds), params, seeds)


def _turn_of(asked: RewriteRequest) -> Turn:
    roles = {"assistant": "agent"}
    history = [{"role": roles.get(m.role, m.role), "text": m.said} for m in asked.history]
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


def _warn_where_no_question_can_be_asked(reader: PromptReader, settings: ServingSettings) -> None:
    turn = Turn(qid="q", conv_id="c", turn=1, split="serve", question="Is anyone there?")
    try:
        reader.ids(settings.messages(turn))
    except PromptError as error:
        log.warning("/rewrite will refuse every question: %s", error)


def create_app(
    engine: Engine,
    settings: ServingSettings,
    reader: PromptReader | None = None,
    *,
    hosts: Hosts | None = None,
) -> "FastAPI":
    """The service. `app.state.rewriter` is what works behind it. reader: says what is wrong with a
    prompt before it joins a batch; None takes the engine's own, where it has one. hosts: by which
    it may be asked; None takes every name. Raises DependencyError."""
    try:
        from fastapi import FastAPI, Request
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse, Response, StreamingResponse
        from starlette.exceptions import HTTPException
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run {install_command('retriever')}"
        ) from None
    reader = reader or getattr(engine, "reader", None)
    if reader is not None:
        _warn_where_no_question_can_be_asked(reader, settings)
    rewriter = RewriterService(engine, settings, reader)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        rewriter.close()

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
        if first["type"] == "json_invalid":
            return refusal(400, f"the request: {first['ctx']['error']}; {_SEND}")
        if first["loc"] == ("body",) and first["type"] == "model_attributes_type":
            # also what "curl -d" sends unless told otherwise, whatever is in it
            return refusal(400, f"the request: {_SEND}")
        # of a value that may have several types, the one that it came nearest to
        first = max(failure.errors(), key=lambda error: len(error["loc"]))
        parts = [str(part) for part in first["loc"][1:]]
        where = ".".join(part for part in parts if "[" not in part) or "the request"
        said = "is not known here; leave it out" if first["type"] == "extra_forbidden" else None
        return refusal(400, f"{where}: {said or first['msg'].removeprefix('Value error, ')}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, failure: HTTPException) -> Response:
        if failure.status_code in (404, 405):
            said = f"{request.method} {request.url.path} does not exist; POST /rewrite does"
            return refusal(failure.status_code, said)
        if failure.status_code == 400:  # FastAPI's word for a body that it cannot parse
            return refusal(400, f"the request: {failure.detail}; {_SEND}")
        return refusal(failure.status_code, str(failure.detail))

    @app.exception_handler(Exception)
    async def defect(_: Request, failure: Exception) -> Response:
        return refusal(500, f"internal error ({type(failure).__name__}); see the server's log")

    @app.get("/health")
    async def health() -> Response:
        failure = rewriter.queue.failure
        rewriter.queue.look_again()
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
