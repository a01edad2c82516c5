"""Schemathesis over the live service: no 5xx, and every answer as the schema says."""

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from live_server import START_S, serving
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from small_corpus import random_passages

from convsearch.retrieval.client import RetrieverClient
from convsearch.retrieval.memory import InMemoryRetriever
from retriever_server.app import create_app

EXAMPLES = 50
TAKES = ("/retrieve", "/passages", "/readyz")
"""Paths with a body or a parameter, which can be wrong."""
OPERATIONS = [
    ("/retrieve", "POST"), ("/passages", "POST"), ("/livez", "GET"), ("/readyz", "GET"),
    ("/metrics", "GET"),
]  # fmt: skip
RULED = {"query", "queries", "query_ids", "gold_ids"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def contract() -> Iterator[schemathesis.BaseSchema]:
    passages = random_passages(20)
    app = create_app(InMemoryRetriever(passages), qrels={"q": {passages[0].doc_id: 1}})
    with serving(app) as url:
        with RetrieverClient(url) as client:
            client.wait_ready(START_S)
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_all_operations_are_fuzzed(contract: schemathesis.BaseSchema) -> None:
    found = {(one.ok().path, one.ok().method.upper()) for one in contract.get_all_operations()}
    assert found == {*OPERATIONS}


def keep_the_rules(case: schemathesis.Case) -> None:
    """Which the schema cannot say, and drawn bodies break nearly always: one list of queries, no
    ids but for what is theirs, an index that is there. All else stays as it was drawn."""
    assert isinstance(case.body, dict)
    body = {name: value for name, value in case.body.items() if name not in RULED}
    case.query = {}
    case.body = {**body, "queries": case.body.get("queries") or ["amber"]}


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [(*operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if operation[0] in TAKES],
)
def test_answers_fit_the_contract(
    contract: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode
) -> None:
    operation = contract[path][method]
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def examples(case: schemathesis.Case) -> None:
        statuses[case.call_and_validate(checks=CHECKS).status_code] += 1
        if path == "/retrieve" and mode is GenerationMode.POSITIVE:
            keep_the_rules(case)
            assert case.call_and_validate(checks=CHECKS).status_code == 200

    examples()
    assert statuses.total() >= (EXAMPLES if path in TAKES else 1)
    assert path == "/retrieve" or 200 in statuses or mode is GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"query": "' + b"\xff\xfe" + b'"}',
        rb'{"query": "\ud800"}',
        rb'{"queries": ["a"], "gold_ids": [["\ud800"]]}',
        rb'{"queries": ["a"], "query_ids": ["\udfff"]}',
        rb'{"query": "\u0000"}',
        b'{"query": "a", "topk": NaN}',
        b'{"query": "a", "topk": Infinity}',
        b'{"query": "a", "topk": ' + b"9" * 5000 + b"}",
        b'{"query": "a", "topk": 1e400}',
        b'{"query": "a", "topk": "3"}',
        b'{"query": "a", "max_length": -1}',
        b'{"queries": null, "query": null}',
    ],
    ids=range(15),
)
def test_bodies_that_break_parsers(contract: schemathesis.BaseSchema, body: bytes) -> None:
    url = str(contract.location).removesuffix("/openapi.json")
    for path in TAKES[:2]:
        headers = {"content-type": "application/json"}
        answer = httpx.post(url + path, content=body, headers=headers, timeout=60)
        assert answer.status_code in (200, 404, 422)
        assert next(iter(answer.json())) == ("result" if answer.status_code == 200 else "error")
