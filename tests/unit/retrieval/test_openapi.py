"""The committed contract is the live one."""

import json

from retriever_server.openapi import PATH, live_openapi


def test_openapi_json_is_what_the_service_says() -> None:
    committed = json.loads(PATH.read_text(encoding="utf-8"))
    assert committed == live_openapi(), (
        "run python3 -m retriever_server.openapi and look at the diff"
    )
