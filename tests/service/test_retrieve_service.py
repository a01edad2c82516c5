"""The real service over real HTTP: the three request shapes, health, errors, positions."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_server import serving, until
from small_corpus import random_passages, random_queries, write_corpus

from convsearch.errors import RefusedError, RetrieverError
from convsearch.retrieval.client import RetrieverClient
from convsearch.retrieval.known import unknown_ids
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.retrieval.wire import MAX_QUERIES
from convsearch.types import Hit
from retriever_server.app import create_app
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.corpora import Corpus
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.limits import Limits

PASSAGES = random_passages(300)
BY_ID = {p.doc_id: p for p in PASSAGES}
QRELS = {
    "c1_1": {"p7": 1},
    "c1_2": {"p8": 1, "p9": 2, "p10": 0},
    "no-gold": {"p11": 0},
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Bm25Backend:
    folder = tmp_path_factory.mktemp("service")
    build_bm25_index(write_corpus(folder, PASSAGES), folder / "index")
    return Bm25Backend.load(folder / "index")


@pytest.fixture(scope="module")
def url(backend: Bm25Backend) -> Iterator[str]:
    with serving(create_app(backend, qrels=QRELS)) as address:
        yield address


def post(url: str, body: object, path: str = "/retrieve") -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=30)


def test_convsearch_r1_shape_gives_ranks(url: str, backend: Bm25Backend) -> None:
    queries = [PASSAGES[0].text, "amber falcon", "xyzzy"]
    body = {
        "queries": queries,
        "query_ids": ["c1_1", "c1_2", "c1_1"],
        "topk": 300,
        "return_scores": False,
        "max_length": 1024,
    }
    expected = backend.ranks(queries, [["p7"], ["p8", "p9"], ["p7"]], 300)
    assert expected[2] is None
    answer = post(url, body)
    assert answer.status_code == 200
    assert answer.json() == {"result": [-1 if r is None else r for r in expected]}


def test_half_a_surrogate_pair_is_an_unknown_id_and_no_defect(url: str) -> None:
    ids = rb'["\ud800"]'
    for path, body in (
        ("/retrieve", rb'{"queries": ["a"], "gold_ids": [%b]}' % ids),
        ("/passages", rb'{"doc_ids": %b}' % ids),
    ):
        kind = {"Content-Type": "application/json"}
        answer = httpx.post(url + path, content=body, headers=kind)
        assert (answer.status_code, "is not in the index" in answer.text) == (422, True)
        assert "ud800" not in answer.text


def test_inline_golds_need_no_qrels(url: str, backend: Bm25Backend) -> None:
    queries, golds = random_queries(5), [["p1"], ["p2", "p3"], ["p4"], ["p5"], ["p6"]]
    answer = post(url, {"queries": queries, "gold_ids": golds, "topk": 300})
    assert answer.json()["result"] == [r or -1 for r in backend.ranks(queries, golds, 300)]
    with serving(create_app(backend)) as bare:
        assert (
            post(bare, {"queries": queries, "gold_ids": golds, "topk": 300}).json() == answer.json()
        )
        refused = post(bare, {"queries": ["amber"], "query_ids": ["c1_1"]})
        assert refused.status_code == 422
        assert "--trec_path" in refused.json()["error"]


def test_search_r1_shape_gives_documents(url: str, backend: Bm25Backend) -> None:
    queries = ["amber falcon", "xyzzy", "river"]
    hits = backend.search(queries, 3)

    def document(hit: Hit) -> dict[str, str]:
        return {"id": hit.doc_id, "contents": BY_ID[hit.doc_id].contents}

    bare = post(url, {"queries": queries, "topk": 3, "return_scores": False})
    assert bare.json() == {"result": [[document(h) for h in found] for found in hits]}
    scored = post(url, {"queries": queries, "topk": 3, "return_scores": True})
    assert scored.json() == {
        "result": [[{"document": document(h), "score": h.score} for h in found] for found in hits]
    }
    titled = [d for d in bare.json()["result"][0] if BY_ID[d["id"]].title]
    assert titled, "the test needs a passage with a title"
    for found in titled:
        title, _, text = found["contents"].partition("\n")
        assert (title, text) == (f'"{BY_ID[found["id"]].title}"', BY_ID[found["id"]].text)


def test_skyrl_shape_is_one_query_with_scores(url: str) -> None:
    single = post(url, {"query": "amber falcon"})
    same = post(url, {"queries": ["amber falcon"], "topk": 3, "return_scores": True})
    assert single.json() == same.json()
    assert len(single.json()["result"]) == 1
    assert len(single.json()["result"][0]) == 3


def test_topk_null_takes_the_default_of_the_shape(url: str, backend: Bm25Backend) -> None:
    documents = post(url, {"queries": ["amber"], "topk": None}).json()["result"]
    assert len(documents[0]) == 3
    [hits] = backend.search(["amber falcon river"], 300)
    assert len(hits) > 100
    golds = [[hits[99].doc_id], [hits[100].doc_id]]
    body = {"queries": ["amber falcon river"] * 2, "gold_ids": golds, "topk": None}
    assert post(url, body).json()["result"] == [100, -1]


def test_one_query_id_eight_times_gives_eight_independent_ranks(
    url: str, backend: Bm25Backend
) -> None:
    queries = random_queries(8, seed=2)
    together = post(url, {"queries": queries, "query_ids": ["c1_1"] * 8, "topk": 300}).json()[
        "result"
    ]
    singles = [
        post(url, {"queries": [q], "query_ids": ["c1_1"], "topk": 300}).json()["result"][0]
        for q in queries
    ]
    direct = [rank or -1 for rank in backend.ranks(queries, [["p7"]] * 8, 300)]
    assert together == singles == direct
    assert len(set(together)) > 3, "the queries must have different ranks, or this proves nothing"


def test_sixteen_clients_at_once_get_what_one_gets(url: str) -> None:
    rng = random.Random(1)
    batches = [
        (random_queries(20, seed=i), [[rng.choice(PASSAGES).doc_id] for _ in range(20)])
        for i in range(32)
    ]
    with RetrieverClient(url) as client, ThreadPoolExecutor(16) as pool:
        serial = [client.ranks(queries, golds, 100) for queries, golds in batches]
        parallel = list(pool.map(lambda batch: client.ranks(*batch, 100), batches))
        one_batch = client.ranks(
            [q for queries, _ in batches for q in queries],
            [g for _, golds in batches for g in golds],
            100,
        )
    assert parallel == serial
    assert one_batch == [rank for ranks in serial for rank in ranks]


def test_empty_lists_and_long_queries_are_answered(url: str) -> None:
    assert post(url, {"queries": []}).json() == {"result": []}
    assert post(url, {"queries": [], "query_ids": []}).json() == {"result": []}
    long = ("amber falcon " * 10_000)[:100_000]
    with RetrieverClient(url) as client:
        assert client.ranks([long, ""], [["p7"], ["p7"]], 300)[1] is None
    full = post(url, {"queries": ["amber"] * MAX_QUERIES, "query_ids": ["c1_1"] * MAX_QUERIES})
    assert len(full.json()["result"]) == MAX_QUERIES


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"queries": ["a"], "query_ids": ["zzz"]}, 404, "qid 'zzz' has no line in the qrels"),
        ({"queries": ["a"], "query_ids": ["no-gold"]}, 404, "has no relevant passage"),
        ({"queries": ["a"], "gold_ids": [["nope"]]}, 422, "passage 'nope' is not in the index"),
        ({"queries": ["a"], "gold_ids": [[]]}, 422, "needs at least one passage id"),
        ({"queries": ["a", "b"], "query_ids": ["c1_1"]}, 422, "got 1 for 2 queries"),
        ({"queries": ["a"], "gold_ids": [["p1"], ["p2"]]}, 422, "got 2 for 1 queries"),
        ({"queries": ["a"], "gold_ids": [["p1"]], "query_ids": ["c1_1"]}, 422, "not both"),
        ({"queries": ["a"], "query": "a"}, 422, 'either "queries"'),
        ({}, 422, 'either "queries"'),
        ({"queries": "a"}, 422, "queries: Input should be a valid list"),
        ({"queries": ["a", 3]}, 422, "queries.1: Input should be a valid string"),
        ({"queries": ["a"], "topk": 0}, 422, "topk: Input should be greater than or equal to 1"),
        ({"queries": ["a"], "topk": 1001}, 422, "topk: Input should be less than or equal to 1000"),
        ({"queries": ["a"], "query_ids": ["c1_1"], "return_scores": True}, 422, "leave it out"),
        ({"queries": ["a"] * (MAX_QUERIES + 1)}, 422, "queries: List should have at most 2048"),
        ([1], 422, "the request: send one JSON object"),
    ],
)
def test_bad_requests_get_a_sentence(url: str, body: object, status: int, sentence: str) -> None:
    answer = post(url, body)
    assert answer.status_code == status
    assert set(answer.json()) - {"unknown"} == {"error"}
    assert sentence in answer.json()["error"]


def test_requests_that_are_no_json_or_too_large_or_elsewhere(url: str) -> None:
    broken = httpx.post(
        url + "/retrieve", content=b"{oops", headers={"content-type": "application/json"}
    )
    assert (broken.status_code, "JSON" in broken.json()["error"]) == (422, True)
    untyped = httpx.post(url + "/retrieve", content=b'{"query": "amber"}')  # as "curl -d" does
    assert (untyped.status_code, "Content-Type" in untyped.json()["error"]) == (422, True)
    elsewhere = httpx.get(url + "/search")
    assert (elsewhere.status_code, "POST /retrieve" in elsewhere.json()["error"]) == (404, True)
    method = httpx.get(url + "/retrieve")
    assert (method.status_code, "POST /retrieve" in method.json()["error"]) == (405, True)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_limit_is_refused(backend: Bm25Backend, declared: bool) -> None:
    with serving(create_app(backend, limits=Limits(max_body_bytes=1000))) as small:
        content = b'{"query": "' + b"a" * 2000 + b'"}'
        answer = httpx.post(
            small + "/retrieve",
            headers={"content-type": "application/json"},
            content=content if declared else iter([content[:900], content[900:]]),
        )
        assert answer.status_code == 413
        assert "larger than 1000 bytes" in answer.json()["error"]
        assert post(small, {"query": "amber"}).status_code == 200


def test_passages_by_id(url: str) -> None:
    with RetrieverClient(url) as client:
        assert client.passages(["p3", "p1", "p3"]) == [BY_ID["p3"], BY_ID["p1"], BY_ID["p3"]]
    unknown = post(url, {"doc_ids": ["nope"]}, "/passages")
    assert (unknown.status_code, "'nope'" in unknown.json()["error"]) == (422, True)


def test_health_reports_what_is_served(url: str, backend: Bm25Backend) -> None:
    assert httpx.get(url + "/livez").json() == {"live": True}
    with RetrieverClient(url) as client:
        client.wait_ready(60)
    ready = httpx.get(url + "/readyz")
    assert ready.status_code == 200
    card = {
        "engine": "bm25",
        "num_passages": 300,
        "fingerprint": backend.info.fingerprint,
        "coverage": 1.0,
        "qrels_fingerprint": ready.json()["qrels_fingerprint"],
    }
    assert len(card["qrels_fingerprint"]) == 64
    assert ready.json() == {"ready": True, **card, "indexes": {"default": card}}


class _Gated(InMemoryRetriever):
    """Its first search waits for a gate, and may then fail."""

    def __init__(self, *, failure: Exception | None = None) -> None:
        super().__init__(PASSAGES[:3])
        self.gate = threading.Event()
        self._failure = failure

    def search(self, queries, topk):
        self.gate.wait(60)
        if self._failure:
            raise self._failure
        return super().search(queries, topk)


def test_not_ready_until_a_query_of_its_own_was_answered() -> None:
    engine = _Gated()
    with serving(create_app(engine)) as address:
        early = httpx.get(address + "/readyz")
        assert (early.status_code, "not answered its first query" in early.text) == (503, True)
        assert early.headers["retry-after"] == "1"
        assert httpx.get(address + "/livez").status_code == 200
        engine.gate.set()
        with RetrieverClient(address) as client:
            client.wait_ready(60)
        assert httpx.get(address + "/readyz").json()["engine"] == "memory"


def test_an_engine_that_fails_is_never_ready_and_answers_500_as_json(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Found although the first index has not answered yet."""
    engine, other = _Gated(), _Gated(failure=RuntimeError("disk on fire"))
    other.gate.set()
    with serving(create_app(engine, further={"other": Corpus(other)})) as address:
        until(lambda: "disk on fire" in httpx.get(address + "/readyz").text, "the failure")
        refused = httpx.get(address + "/readyz")
        assert (refused.status_code, "retry-after" in refused.headers) == (503, False)
        assert "index 'other': the engine failed at its first query: disk on fire" in refused.text
        with RetrieverClient(address) as client, pytest.raises(RetrieverError, match="on fire"):
            client.wait_ready(1)
        engine.gate.set()
        answer = post(address, {"query": "amber"}, "/retrieve?index=other")
        assert answer.status_code == 500
        assert "internal error (RuntimeError)" in answer.json()["error"]
    assert "index 'other' failed at its first query" in caplog.text
    assert "RuntimeError: disk on fire" in caplog.text


def test_health_is_answered_while_searches_run(url: str) -> None:
    engine = _Gated()
    with serving(create_app(engine)) as address, ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(post, address, {"query": "amber"}) for _ in range(4)]
        for _ in range(5):
            assert httpx.get(address + "/livez", timeout=5).status_code == 200
        assert not any(search.done() for search in searches)
        engine.gate.set()
        assert [search.result().status_code for search in searches] == [200] * 4


def test_all_unknown_ids_of_a_request_are_named(url: str) -> None:
    golds = [["p1", "nope", "no"], ["gone"]]
    answer = post(url, {"queries": ["a", "b"], "gold_ids": golds})
    assert (answer.status_code, answer.json()["unknown"]) == (422, ["nope", "no", "gone"])
    assert "(nor are 2 others)" in answer.json()["error"]
    answer = post(url, {"doc_ids": ["p1", "nope"]}, "/passages")
    assert (answer.status_code, answer.json()["unknown"]) == (422, ["nope"])
    with RetrieverClient(url) as client:
        assert unknown_ids(client, ["p1", "nope", "p2", "gone", "nope"]) == ["nope", "gone"]
        assert unknown_ids(client, ["p1", "p2"]) == []
        with pytest.raises(RefusedError, match="'nope' is not in the index"):
            client.ranks(["a"], [["nope"]], 1)
