"""Schemathesis over the live service: no 5xx, and every answer as the schema says."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from live_server import serving
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

from convsearch.retrieval.memory import InMemoryRetriever
from retriever_server.app import create_app

EXAMPLES = 50
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
def contract() -> Iterator[schemathesis.openapi.OpenApiSchema]:
    passages = random_passages(20)
    app = create_app(InMemoryRetriever(passages), qrels={"q": {passages[0].doc_id: 1}})
    with serving(app) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


schema = schemathesis.pytest.from_fixture("contract")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_fit_the_contract(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)
