"""Both clients against real servers that fail, hang, refuse, or are something else."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from live_server import serving
from small_corpus import random_passages, random_queries
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from convsearch.errors import ConfigError, RetrieverError
from convsearch.network.retries import Waits
from convsearch.retrieval import Retriever
from convsearch.retrieval.async_client import AsyncRetrieverClient
from convsearch.retrieval.cache import AnswerCache
from convsearch.retrieval.client import RetrieverClient
from convsearch.retrieval.info import IndexInfo
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.retrieval.questions import CHUNK_QUERIES
from retriever_server.app import create_app
from retriever_server.corpora import Corpus

PASSAGES = random_passages(60)
ENGINE = InMemoryRetriever(PASSAGES)
QRELS = {"q1": {"p1": 1}, "q2": {"p2": 1, "p3": 1}}
Fault = Callable[[Scope, Receive, Send], Awaitable[None]]
Call = Callable[..., list[int | None]]


def _sync(
    url: str, queries: list[str], golds: list[list[str]], **settings: Any
) -> list[int | None]:
    with RetrieverClient(url, **settings) as client:
        return client.ranks(queries, golds, 60)


def _async(
    url: str, queries: list[str], golds: list[list[str]], **settings: Any
) -> list[int | None]:
    async def call() -> list[int | None]:
        client = AsyncRetrieverClient(url, **settings)
        try:
            return await client.ranks(queries, golds, 60)
        finally:
            await client.aclose()

    return asyncio.run(call())


both = pytest.mark.parametrize("call", [_sync, _async], ids=["sync", "async"])


class Faulty:
    """Fails the first `times` requests, then hands on to the real service; counts what came."""

    def __init__(self, fault: Fault, times: int) -> None:
        self._app: ASGIApp = create_app(ENGINE, qrels=QRELS)
        self._fault = fault
        self._times = times
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.requests += 1
            if self.requests <= self._times:
                await self._fault(scope, receive, send)
                return
        await self._app(scope, receive, send)


def answers(response: Response) -> Fault:
    async def fault(scope: Scope, receive: Receive, send: Send) -> None:
        await response(scope, receive, send)

    return fault


async def hang_up(scope: Scope, receive: Receive, send: Send) -> None:
    """Promises 100 bytes and sends 5."""
    headers = [(b"content-length", b"100"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"res'})


async def sleep_long(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(30)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Waits(initial_s=0.05, factor=2.0, longest_s=60.0)
    monkeypatch.setattr("convsearch.retrieval.client.WAITS", short)
    monkeypatch.setattr("convsearch.retrieval.async_client.WAITS", short)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(create_app(ENGINE, qrels=QRELS)) as address:
        yield address


@both
@pytest.mark.parametrize("suffix", ["", "/", "/retrieve", "/retrieve/"])
def test_the_url_may_end_in_retrieve(url: str, call: Call, suffix: str) -> None:
    queries, golds = random_queries(4), [["p1"], ["p2", "p3"], ["p4"], ["p5"]]
    assert call(url + suffix, queries, golds) == ENGINE.ranks(queries, golds, 60)


def test_the_client_is_a_retriever_like_the_engine_behind_it(url: str) -> None:
    queries = [*random_queries(2 * CHUNK_QUERIES + 3), "xyzzy", ""]
    golds = [[PASSAGES[i % 60].doc_id] for i in range(len(queries))]
    with RetrieverClient(url) as client:
        assert isinstance(client, Retriever)
        assert client.ranks(queries, golds, 60) == ENGINE.ranks(queries, golds, 60)
        assert client.search(queries[-8:], 5) == ENGINE.search(queries[-8:], 5)
        assert client.passages(["p4", "p2"]) == ENGINE.passages(["p4", "p2"])
        assert client.ranks([], [], 10) == client.search([], 10) == client.passages([]) == []


def _info(url: str, **settings: Any) -> IndexInfo | None:
    with RetrieverClient(url, **settings) as client:
        return client.read_info()


def _async_info(url: str, **settings: Any) -> IndexInfo | None:
    async def call() -> IndexInfo | None:
        client = AsyncRetrieverClient(url, **settings)
        try:
            return await client.read_info()
        finally:
            await client.aclose()

    return asyncio.run(call())


both_infos = pytest.mark.parametrize("info", [_info, _async_info], ids=["sync", "async"])


@both_infos
def test_the_engine_behind_a_server_is_known_by_its_fingerprint(
    url: str, info: Callable[..., IndexInfo | None]
) -> None:
    assert info(f"{url}/retrieve") == ENGINE.info
    app = Faulty(answers(JSONResponse({"error": "warming up"}, status_code=503)), times=2)
    with serving(app) as address:
        assert info(address) == ENGINE.info
    assert app.requests == 3
    other = InMemoryRetriever(PASSAGES[:5])
    with serving(create_app(ENGINE, further={"few": Corpus(other)})) as address:
        assert info(f"{address}/retrieve?index=few") == other.info


@both_infos
@pytest.mark.parametrize(
    "response",
    [
        JSONResponse({"detail": "Not Found"}, status_code=404),
        HTMLResponse("<h1>Welcome to nginx</h1>"),
        JSONResponse({"status": "ok"}),
        JSONResponse({"engine": "bm25", "num_passages": None, "fingerprint": None,
                      "qrels_fingerprint": None}),
    ],
    ids=["search-r1", "html", "other", "silent"],
)  # fmt: skip
def test_a_server_that_does_not_tell_its_index_is_asked_once(
    info: Callable[..., IndexInfo | None], response: Response
) -> None:
    app = Faulty(answers(response), times=100)
    with serving(app) as address:
        assert info(address) is None
    assert app.requests == 1


@both_infos
def test_a_dead_server_is_not_one_that_does_not_tell(info: Callable[..., IndexInfo | None]) -> None:
    app = Faulty(answers(JSONResponse({"error": "disk on fire"}, status_code=500)), times=100)
    with serving(app) as address, pytest.raises(RetrieverError, match="disk on fire"):
        info(address, attempts=2)
    assert app.requests == 2
    with pytest.raises(RetrieverError, match="no usable answer"):
        info("http://127.0.0.1:1", attempts=1)


def test_one_qid_eight_times_gives_eight_ranks(url: str) -> None:
    queries = random_queries(8, seed=1)
    expected = ENGINE.ranks(queries, [["p1"]] * 8, 60)
    assert len(set(expected)) > 3
    with RetrieverClient(url) as client:
        assert client.ranks_by_qid(queries, ["q1"] * 8, 60) == expected

    async def call() -> list[int | None]:
        client = AsyncRetrieverClient(url)
        parts = await asyncio.gather(
            *(client.ranks_by_qid([q], ["q1"], 60) for q in queries), client.ranks_by_qid([], [], 1)
        )
        await client.aclose()
        return [rank for part in parts for rank in part]

    assert asyncio.run(call()) == expected


@both
@pytest.mark.parametrize(
    "fault",
    [
        answers(JSONResponse({"error": "warming up"}, status_code=503)),
        answers(JSONResponse({"error": "slow down"}, status_code=429)),
        answers(HTMLResponse("<h1>Bad gateway</h1>", status_code=502)),
        answers(Response(status_code=500)),
        answers(HTMLResponse("<h1>Welcome to nginx</h1>")),
        answers(Response(b'{"result": [1', media_type="application/json")),
        answers(JSONResponse({"result": [1]})),
        answers(JSONResponse([])),
        hang_up,
    ],
    ids=[
        "503",
        "429",
        "502-html",
        "500-empty",
        "html",
        "cut-json",
        "short",
        "no-object",
        "hang-up",
    ],
)
def test_two_failures_are_bridged(call: Call, fault: Fault) -> None:
    app = Faulty(fault, times=2)
    queries, golds = random_queries(3), [["p1"], ["p2"], ["p3"]]
    with serving(app) as address:
        assert call(address, queries, golds) == ENGINE.ranks(queries, golds, 60)
    assert app.requests == 3


@both
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (answers(JSONResponse({"error": "disk on fire"}, status_code=500)), "disk on fire"),
        (answers(HTMLResponse("<h1>Bad gateway</h1>", status_code=502)), "Bad gateway"),
        (answers(HTMLResponse("<h1>Welcome to nginx</h1>")), "not a retrieval result"),
        (answers(JSONResponse({"result": [1]})), "1 results for 2 questions"),
        (answers(JSONResponse({"result": "yes"})), "str results for 2 questions"),
    ],
)
def test_lasting_failures_end_in_a_sentence(call: Call, fault: Fault, sentence: str) -> None:
    app = Faulty(fault, times=100)
    with serving(app) as address:
        with pytest.raises(RetrieverError) as caught:
            call(address, ["amber", "birch"], [["p1"], ["p2"]], attempts=3)
        assert f"{address}/retrieve: no usable answer after 3 attempt(s)" in str(caught.value)
    assert sentence in str(caught.value)
    assert "convsearch serve" in str(caught.value)
    assert app.requests == 3


@both
@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 302])
def test_a_refusal_is_final_and_carries_the_servers_sentence(call: Call, status: int) -> None:
    app = Faulty(answers(JSONResponse({"error": "no, because"}, status_code=status)), times=100)
    with serving(app) as address, pytest.raises(RetrieverError, match=f"{status}: no, because"):
        call(address, ["amber"], [["p1"]])
    assert app.requests == 1


@both
def test_the_servers_own_refusals_reach_the_caller(url: str, call: Call) -> None:
    with pytest.raises(RetrieverError, match="'nope' is not in the index"):
        call(url, ["amber"], [["nope"]])
    with RetrieverClient(url) as client:
        with pytest.raises(RetrieverError, match="qid 'zzz' has no line"):
            client.ranks_by_qid(["amber"], ["zzz"], 10)
        with pytest.raises(RetrieverError, match="'nope' is not in the index"):
            client.passages(["nope"])


@both
@pytest.mark.parametrize("rank", [0, -2, 1.5, None, "1", True])
def test_what_is_no_rank_is_refused(call: Call, rank: object) -> None:
    app = Faulty(answers(JSONResponse({"result": [rank]})), times=100)
    with serving(app) as address, pytest.raises(RetrieverError, match="is not a rank"):
        call(address, ["amber"], [["p1"]])


@both
def test_a_dead_server_is_named(call: Call) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(
        RetrieverError, match=f"{address}/retrieve: no usable answer after 6 attempt"
    ):
        call(address, ["amber"], [["p1"]])
    assert time.monotonic() - start < 60


@both
def test_a_server_that_hangs_meets_the_deadline(call: Call) -> None:
    app = Faulty(sleep_long, times=100)
    with serving(app) as address:
        start = time.monotonic()
        with pytest.raises(RetrieverError, match=f"{address}/retrieve: no usable answer"):
            call(address, ["amber"], [["p1"]], timeout_s=2)
        assert 1.5 < time.monotonic() - start < 20
    assert app.requests == 1


@both
def test_a_server_that_comes_back_is_found(call: Call) -> None:
    queries, golds = random_queries(2), [["p1"], ["p2"]]
    server = uvicorn.Server(uvicorn.Config(create_app(ENGINE), log_level="error"))

    def run() -> None:
        time.sleep(0.3)  # bound but not listening: connections are refused until then
        server.run(sockets=[listener])

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=run)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            found = call(url, queries, golds, attempts=12)  # a minute, should it start slowly
        finally:
            server.should_exit = True
            thread.join(60)
    assert found == ENGINE.ranks(queries, golds, 60)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://h:99999",
        "http://[::1",
        "http://h?topk=3",
        "http://h?index=a&index=b",
    ],
)
def test_what_is_no_url_is_refused(bad: str) -> None:
    for kind in (RetrieverClient, AsyncRetrieverClient):
        with pytest.raises(ConfigError, match="not the URL of a retrieval server"):
            kind(bad)
        with pytest.raises(ConfigError, match="timeout_s above 0"):
            kind("http://h", timeout_s=0)


def test_wrong_arguments_are_the_callers_mistake(url: str) -> None:
    client = AsyncRetrieverClient(url)
    with pytest.raises(ValueError, match="got 2 for 1 queries"):
        asyncio.run(client.ranks_by_qid(["amber"], ["q1", "q2"], 10))
    with pytest.raises(ValueError, match="2 queries and 1 golds"):
        asyncio.run(client.ranks(["amber", "b"], [["p1"]], 10))
    asyncio.run(client.aclose())


@both
def test_an_overloaded_server_is_given_the_time_it_asks_for(call: Call) -> None:
    busy = JSONResponse({"error": "busy"}, status_code=503, headers={"Retry-After": "1"})
    app = Faulty(answers(busy), times=1)
    with serving(app) as address:
        start = time.monotonic()
        assert len(call(address, ["amber"], [["p1"]])) == 1
        assert time.monotonic() - start >= 1
    assert app.requests == 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_cache_follows_the_index_of_the_server(tmp_path: Path, kind: str) -> None:
    other = InMemoryRetriever(PASSAGES[:30])
    gold = [[PASSAGES[0].doc_id]] * 8
    queries = random_queries(8, seed=4)
    both_ranks = [engine.ranks(queries, gold, 60) for engine in (ENGINE, other)]
    assert both_ranks[0] != both_ranks[1]
    call = _sync if kind == "sync" else _async
    with AnswerCache(tmp_path / "cache.db") as cache:
        for engine, expected in [*zip((ENGINE, other), both_ranks, strict=True)] * 2:
            app = Faulty(hang_up, times=0)
            app._app = create_app(engine)
            with serving(app) as address:
                assert call(address, queries, gold, cache=cache) == expected
                before = app.requests
                assert call(address, queries, gold, cache=cache) == expected
                assert app.requests == before + 1, "the index is asked for, nothing else"
        assert len(cache) == 16


def test_a_url_may_name_the_index() -> None:
    app = create_app(
        ENGINE, name="train", further={"test": Corpus(InMemoryRetriever(PASSAGES[:9]))}
    )
    with serving(app) as address:
        with RetrieverClient(f"{address}/retrieve?index=test") as client:
            assert len(client.search(["amber birch castle delta"], 60)[0]) <= 9
            client.wait_ready(60)
        with (
            RetrieverClient(address, index="dev") as client,
            pytest.raises(RetrieverError, match=r"there are: train, test.*request [0-9a-f]{32}"),
        ):
            client.search(["amber"], 3)


def test_wait_ready_gives_the_reason(url: str) -> None:
    with RetrieverClient(url) as client:
        client.wait_ready(60)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = pytest.raises(RetrieverError, match=r"not ready within 0\.3 s \(.*refused")
    with RetrieverClient(f"http://127.0.0.1:{port}") as client, refused:
        client.wait_ready(0.3)
