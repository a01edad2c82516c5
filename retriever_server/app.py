"""The retrieval service over any `Retriever`. The contract is `convsearch.retrieval.wire`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Protocol, runtime_checkable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from convsearch.errors import DataError
from convsearch.files import Qrels, gold_ids
from convsearch.retrieval.info import info_of
from convsearch.retrieval.protocol import Retriever
from convsearch.retrieval.wire import (
    MAX_BODY_BYTES,
    NOT_FOUND,
    DocumentsResponse,
    ErrorResponse,
    LiveResponse,
    PassagesRequest,
    PassagesResponse,
    RanksResponse,
    ReadyResponse,
    RetrieveRequest,
    ScoredDocumentsResponse,
)
from convsearch.types import Hit
from retriever_server.limits import BodyLimit

API_VERSION = "1"

_ERRORS: dict[int | str, dict[str, object]] = {
    404: {"model": ErrorResponse, "description": "a query id without gold passage"},
    413: {"model": ErrorResponse, "description": "the request is too large"},
    422: {"model": ErrorResponse, "description": "the request does not fit the contract"},
    500: {"model": ErrorResponse, "description": "a defect of the server; its log has the details"},
}


@runtime_checkable
class QueryLengthSettable(Protocol):
    """An engine that cuts queries: `with_query_length` gives the same engine with another cut."""

    def with_query_length(self, max_length: int) -> Retriever: ...


def create_app(backend: Retriever, *, qrels: Qrels | None = None) -> FastAPI:
    """The service over one loaded engine.

    qrels: gold passages of the query ids that clients may send; without them clients send
    `gold_ids`. Nothing in the service is keyed by query id, text or batch: a query id that is sent
    eight times with eight rewrites gets eight answers.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.self_query = asyncio.create_task(
            asyncio.to_thread(backend.search, ["is anyone there"], 1)
        )
        yield
        app.state.self_query.cancel()

    app = FastAPI(
        title="convsearch retrieval server",
        version=API_VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    _answer_errors_with_sentences(app)

    # plain functions: FastAPI runs them in threads, so a long search never blocks the event loop
    @app.post(
        "/retrieve",
        response_model=RanksResponse | DocumentsResponse | ScoredDocumentsResponse,
        responses=_ERRORS,
    )
    def retrieve(request: RetrieveRequest) -> JSONResponse:
        engine = backend
        if request.max_length is not None and isinstance(backend, QueryLengthSettable):
            engine = backend.with_query_length(request.max_length)
        if not request.wants_ranks:
            hits = engine.search(request.texts, request.depth)
            return JSONResponse({"result": _documents(engine, hits, request)})
        golds = request.gold_ids
        if golds is None:
            golds = [_golds_of(qrels, qid) for qid in request.query_ids or []]
        ranks = engine.ranks(request.texts, golds, request.depth)
        return JSONResponse({"result": [NOT_FOUND if rank is None else rank for rank in ranks]})

    @app.post("/passages", response_model=PassagesResponse, responses=_ERRORS)
    def passages(request: PassagesRequest) -> JSONResponse:
        return JSONResponse({"result": [asdict(p) for p in backend.passages(request.doc_ids)]})

    @app.get("/livez", response_model=LiveResponse)
    async def livez() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.get(
        "/readyz",
        response_model=ReadyResponse,
        responses={503: {"model": ErrorResponse, "description": "not ready to answer queries"}},
    )
    async def readyz(request: Request) -> JSONResponse:
        task: asyncio.Task[list[list[Hit]]] = request.app.state.self_query
        if not task.done():
            return _error(503, "the engine has not answered its first query yet; try again")
        if task.cancelled():
            return _error(503, "the server is stopping")
        if failure := task.exception():
            return _error(503, f"the engine failed at its first query: {failure}; read the log")
        info = info_of(backend)
        return JSONResponse(
            {
                "ready": True,
                "engine": info.engine if info else type(backend).__name__,
                "num_passages": info.num_passages if info else None,
                "fingerprint": info.fingerprint if info else None,
            }
        )

    return app


def _golds_of(qrels: Qrels | None, qid: str) -> list[str]:
    if qrels is None:
        raise HTTPException(
            422, 'this server has no qrels; start it with --trec_path or send "gold_ids"'
        )
    try:
        golds = gold_ids(qrels, qid)
    except DataError as error:
        raise HTTPException(404, str(error)) from None
    if not golds:
        raise HTTPException(404, f"qid {qid!r} has no relevant passage in the qrels")
    return golds


def _documents(
    engine: Retriever, hits: Sequence[Sequence[Hit]], request: RetrieveRequest
) -> list[list[dict[str, object]]]:
    contents: dict[str, str] = {}
    if request.with_contents:
        ids = sorted({hit.doc_id for found in hits for hit in found})
        contents = {p.doc_id: p.contents for p in engine.passages(ids)}

    def document(hit: Hit) -> dict[str, object]:
        plain: dict[str, object] = {"id": hit.doc_id, "contents": contents.get(hit.doc_id)}
        return {"document": plain, "score": hit.score} if request.wants_scores else plain

    return [[document(hit) for hit in found] for found in hits]


def _error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status)


def _answer_errors_with_sentences(app: FastAPI) -> None:
    """Every error leaves as `{"error": sentence}`, never as HTML or a bare status."""

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        return _error(422, f"{where}: {first['msg'].removeprefix('Value error, ')}{more}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.detail == HTTPStatus(error.status_code).phrase:  # from the router, without a word
            method, path = request.method, request.url.path
            return _error(error.status_code, f"{method} {path} does not exist; POST /retrieve does")
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(DataError)
    async def bad_ids(_: Request, error: DataError) -> JSONResponse:
        return _error(422, str(error))

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        return _error(500, f"internal error ({type(error).__name__}); see the server's log")
