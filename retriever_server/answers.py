"""The bodies of answers, as bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from fastapi import Response

from convsearch.errors import UnknownPassageError
from convsearch.retrieval.protocol import Retriever
from convsearch.retrieval.wire import NOT_FOUND, RetrieveRequest
from convsearch.types import Hit, Passage
from retriever_server.parts import DegradedError, Partial

_JSON = "application/json"


def error(status: int, sentence: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """`{"error": sentence}`: the form of every answer of 400 and above."""
    return Response(
        _bytes(error_form(status, sentence)),
        status,
        headers=dict(headers or {}),
        media_type=_JSON,
    )


def unknown_passages(failure: UnknownPassageError) -> Response:
    """422 that names all ids of the request that the index does not have."""
    body = {"error": str(failure), "unknown": list(failure.doc_ids)}
    return Response(_bytes(body), 422, media_type=_JSON)


def error_form(status: int, sentence: str) -> dict[str, object]:
    """What is in the body of an error."""
    return {"error": sentence}


def degraded(failure: DegradedError) -> Response:
    """503 for a search that a part of the index is missing for."""
    body = {"error": str(failure), "degraded": True, "coverage": failure.coverage}
    return Response(_bytes(body), 503, headers={"Retry-After": "1"}, media_type=_JSON)


def ranks_body(found: Partial[int | None], truncated: Sequence[int]) -> bytes:
    """The ranks by position, -1 where there is none."""
    ranks = (NOT_FOUND if rank is None else rank for rank in found.entries)
    return _body(map(_bytes, ranks), truncated, found.coverage)


def documents_body(engine: Retriever, lists: Partial[list[Hit]], request: RetrieveRequest) -> bytes:
    """The documents of each query, in the shape asked for. Reads texts from disk and may take
    long for deep lists: call it in a thread."""
    contents: dict[str, str] = {}
    if request.with_contents:
        ids = sorted({hit.doc_id for found in lists.entries for hit in found})
        contents = {p.doc_id: p.contents for p in engine.passages(ids)}

    def document(hit: Hit) -> dict[str, object]:
        plain: dict[str, object] = {"id": hit.doc_id, "contents": contents.get(hit.doc_id)}
        return {"document": plain, "score": hit.score} if request.wants_scores else plain

    # query by query: one large call of the encoder would hold the interpreter, and with it the
    # health checks, for its whole length
    found = (_bytes([document(hit) for hit in hits]) for hits in lists.entries)
    return _body(found, request.truncated, lists.coverage)


def passages_body(passages: Sequence[Passage]) -> bytes:
    """The passages in the order of their ids."""
    return _body((_bytes(asdict(passage)) for passage in passages), ())


def json_response(body: bytes, *, headers: Mapping[str, str] | None = None) -> Response:
    """A finished body with status 200."""
    return Response(body, headers=dict(headers or {}), media_type=_JSON)


def _body(entries: Iterable[bytes], truncated: Sequence[int], coverage: float = 1.0) -> bytes:
    flags = b', "truncated": ' + _bytes(list(truncated)) if truncated else b""
    if coverage < 1:
        flags += b', "degraded": true, "coverage": ' + _bytes(coverage)
    return b'{"result": [' + b",".join(entries) + b"]" + flags + b"}"


def _bytes(value: object) -> bytes:
    # "replace": half of a surrogate pair, which JSON can carry and UTF-8 cannot
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
