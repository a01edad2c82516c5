"""The retrieval service over any `Retriever`. The contract is `convsearch.retrieval.wire`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from convsearch.errors import DataError, UnknownPassageError
from convsearch.files import Qrels
from convsearch.network.hosts import HostCheck, Hosts
from convsearch.retrieval.protocol import Retriever
from convsearch.retrieval.wire import (
    REQUEST_ID_HEADER,
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
from retriever_server.answers import (
    degraded,
    documents_body,
    error,
    json_response,
    passages_body,
    ranks_body,
    unknown_passages,
)
from retriever_server.auth import ApiKey
from retriever_server.corpora import Corpora, Corpus, NotReady
from retriever_server.integrity import BackgroundCheck
from retriever_server.limits import BodyLimit, Deadline, InFlightLimit, Limits
from retriever_server.metrics import Metrics
from retriever_server.parts import DegradedError, Partial, whole
from retriever_server.request_log import RequestLog
from retriever_server.settings import DEFAULT_INDEX
from retriever_server.turns import Turns
from retriever_server.watch import IndexChangedError, IndexWatch

API_VERSION = "1"
ANSWER_THREADS = 2
"""Threads that write long answers. All that are at it and the event loop share the interpreter, so
each of them makes health checks wait; two, that a huge answer does not hold up all small ones."""
REQUESTS_PER_PASS = 2
"""Requests that are taken up or answered between two looks at the sockets."""
Responses = dict[int | str, dict[str, object]]


def _errors(**described: str) -> Responses:
    return {
        int(status.removeprefix("_")): {"model": ErrorResponse, "description": sentence}
        for status, sentence in described.items()
    }


_KEY_ERRORS = _errors(
    _401="the API key is missing or wrong",
    _403="no key is asked for, and Host or Origin is not a name of this server",
)
_READY_ERRORS = _errors(_404="no such index", _503="not ready to answer queries")
_WORK_ERRORS = _KEY_ERRORS | _errors(
    _404="an unknown index, or a query id without gold passage",
    _413="the request is too large",
    _422="the request does not fit the contract",
    _500="a defect of the server; its log has the details",
    _503="too many requests are being worked on, or the server stops, try again; or the index is "
    "damaged",
    _504="not answered within the deadline",
)
IndexName = Annotated[
    str | None, Query(alias="index", description="name of the index; absent: the first")
]


def create_app(
    backend: Retriever,
    *,
    qrels: Qrels | None = None,
    name: str = DEFAULT_INDEX,
    further: Mapping[str, Corpus] | None = None,
    api_key: str | None = None,
    limits: Limits | None = None,
    check: BackgroundCheck | None = None,
    watch: IndexWatch | None = None,
    hosts: Hosts | None = None,
) -> FastAPI:
    """The service over loaded engines.

    backend, qrels, name: the index of requests that name none; further: others, by the name of
    `/retrieve?index=`. qrels: gold passages of the query ids that clients may send; without them
    clients send `gold_ids`. api_key: asked of every request but the health checks; None asks for
    nothing. check: of the indexes' files, begins after the first queries. watch: whether they
    are still those that were opened. hosts: by which the
    service may be asked; None takes every name. Nothing in the service is
    keyed by query id, text or batch: a query id that is sent eight times with eight rewrites gets
    eight answers.

    `app.state`: `first_queries` is a task that ends when every engine has answered; `stopping`
    set to true refuses new searches; `searching()` tells whether an engine call runs.
    """
    limits = limits or Limits()
    check = check or BackgroundCheck({})
    metrics = Metrics()
    turns = Turns(REQUESTS_PER_PASS)
    corpora = Corpora(
        {name: Corpus(backend, qrels), **(further or {})},
        max_batch_queries=limits.max_batch_queries,
        metrics=metrics,
        damage=check.damage,
        watch=watch,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        answering = ThreadPoolExecutor(ANSWER_THREADS, thread_name_prefix="answers")
        asyncio.get_running_loop().set_default_executor(answering)  # of `asyncio.to_thread`
        app.state.first_queries = corpora.open()
        app.state.first_queries.add_done_callback(lambda _: check.start())
        yield
        check.stop()
        app.state.stopping = True
        app.state.first_queries.cancel()
        corpora.close()

    app = FastAPI(
        title="convsearch retrieval server",
        version=API_VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.stopping = False
    app.state.searching = corpora.searching

    def foreign(sentence: str) -> Response:
        metrics.rejected("host")
        return error(403, sentence)

    app.add_middleware(
        BodyLimit,
        max_bytes=limits.max_body_bytes,
        max_bodies_bytes=limits.max_bodies_bytes,
        metrics=metrics,
    )
    app.add_middleware(Deadline, deadline_s=limits.deadline_s, turns=turns, metrics=metrics)
    app.add_middleware(InFlightLimit, max_in_flight=limits.max_in_flight, metrics=metrics)
    app.add_middleware(ApiKey, key=api_key, metrics=metrics)
    app.add_middleware(HostCheck, hosts=hosts, refuse=foreign)
    app.add_middleware(RequestLog, metrics=metrics)  # added last, so it is around the others
    _answer_errors_with_sentences(app, metrics)
    _add_health(app, corpora, check, metrics)

    @app.post(
        "/retrieve",
        response_model=RanksResponse | DocumentsResponse | ScoredDocumentsResponse,
        responses=_WORK_ERRORS,
    )
    async def retrieve(
        request: Request, asked: RetrieveRequest, index: IndexName = None
    ) -> Response:
        corpus = corpora[index]
        kind = "ranks" if asked.wants_ranks else "documents"
        texts, cut = asked.texts, asked.truncated
        facts = {"index": index or name, "kind": kind, "queries": len(texts)}
        request.scope["facts"].update(facts, topk=asked.depth, truncated=len(cut))
        metrics.truncated.inc(len(cut))
        if asked.wants_ranks:
            golds = asked.gold_ids
            if golds is None:
                golds = [corpus.golds_of(qid) for qid in asked.query_ids or []]
            ranks = await corpus.queue.partial_ranks(
                texts, golds, asked.depth, max_length=asked.max_length
            )
            await turns.take()
            _check_whole(ranks, asked)
            return json_response(ranks_body(ranks, cut), headers=corpus.headers)
        hits = await corpus.queue.partial_search(texts, asked.depth, max_length=asked.max_length)
        await turns.take()
        _check_whole(hits, asked)
        write = partial(documents_body, corpus.engine, hits, asked)
        body = await asyncio.to_thread(corpus.guarded, write)
        return json_response(body, headers=corpus.headers)

    @app.post("/passages", response_model=PassagesResponse, responses=_WORK_ERRORS)
    async def passages(
        request: Request, asked: PassagesRequest, index: IndexName = None
    ) -> Response:
        corpus = corpora[index]
        request.scope["facts"].update(index=index or name, passages=len(asked.doc_ids))

        def body() -> bytes:
            return passages_body(corpus.engine.passages(asked.doc_ids))

        return json_response(await asyncio.to_thread(corpus.guarded, body), headers=corpus.headers)

    return app


def _check_whole(found: Partial[Any], asked: RetrieveRequest) -> None:
    """Raises DegradedError for an answer from a part of the index that nobody asked for."""
    if not asked.allow_degraded:
        whole(found)


def _add_health(app: FastAPI, corpora: Corpora, check: BackgroundCheck, metrics: Metrics) -> None:
    """Routes that never wait for an engine."""

    @app.get("/livez", response_model=LiveResponse)
    async def livez() -> Response:
        return json_response(b'{"live": true}')

    @app.get("/readyz", response_model=ReadyResponse, responses=_READY_ERRORS)
    async def readyz(index: IndexName = None) -> Response:
        why = NotReady("the server is stopping") if app.state.stopping else corpora.not_ready
        if why is not None:
            return error(503, why.reason, headers={} if why.lasting else {"Retry-After": "1"})
        facts = {"ready": True, **corpora[index].card.model_dump(), "indexes": corpora.cards}
        return json_response(ReadyResponse.model_validate(facts).model_dump_json().encode())

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **_KEY_ERRORS,
        },
    )
    async def metrics_page() -> Response:
        for gauge, shares in (
            (metrics.coverage, corpora.coverage), (metrics.checked, check.checked)
        ):  # fmt: skip
            for name, share in shares.items():
                gauge.labels(name).set(share)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _answer_errors_with_sentences(app: FastAPI, metrics: Metrics) -> None:
    """Every error leaves as `{"error": sentence}`, never as HTML or a bare status."""

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, failure: RequestValidationError) -> Response:
        first = failure.errors()[0]
        if first["loc"] == ("body",) and first["type"] == "model_attributes_type":
            # also what "curl -d" sends unless told otherwise, whatever is in it
            return error(
                422, 'the request: send one JSON object, with "Content-Type: application/json"'
            )
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        more = f" (and {len(failure.errors()) - 1} more)" if len(failure.errors()) > 1 else ""
        return error(422, f"{where}: {first['msg'].removeprefix('Value error, ')}{more}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, failure: HTTPException) -> Response:
        status, sentence = failure.status_code, str(failure.detail)
        if sentence == HTTPStatus(status).phrase:  # from the router, without a word
            method, path = request.method, request.url.path
            sentence = f"{method} {path} does not exist; POST /retrieve does"
        if status == HTTPStatus.BAD_REQUEST:  # FastAPI's word for a body that it cannot parse
            status, sentence = 422, f"the request: {sentence}; send one JSON object"
        return error(status, sentence, headers=failure.headers)

    @app.exception_handler(DegradedError)
    async def shards_missing(_: Request, failure: DegradedError) -> Response:
        metrics.rejected("degraded")
        return degraded(failure)

    @app.exception_handler(UnknownPassageError)
    async def unknown_ids(_: Request, failure: UnknownPassageError) -> Response:
        return unknown_passages(failure)

    @app.exception_handler(IndexChangedError)
    async def index_changed(_: Request, failure: IndexChangedError) -> Response:
        metrics.rejected("damaged")
        return error(503, str(failure))

    @app.exception_handler(DataError)
    async def bad_ids(_: Request, failure: DataError) -> Response:
        return error(422, str(failure))

    @app.exception_handler(Exception)
    async def defect(request: Request, failure: Exception) -> Response:
        sentence = f"internal error ({type(failure).__name__}); see the server's log"
        # answered outside of the middlewares, so the id is added here
        return error(500, sentence, headers={REQUEST_ID_HEADER: request.scope["request_id"]})
