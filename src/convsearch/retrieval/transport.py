"""What both HTTP clients share: the address, the key, what is tried again and when."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx

from convsearch.errors import ConfigError, DataError, RefusedError, RetrieverError
from convsearch.listening import is_header_word
from convsearch.network.retries import TransientError, Waits, retry_after_s
from convsearch.retrieval.info import IndexInfo
from convsearch.retrieval.wire import (
    FINGERPRINT_HEADER,
    QRELS_HEADER,
    REQUEST_ID_HEADER,
    IndexCard,
)
from convsearch.texts import json_value, parse_json

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
"""Overload and broken servers; any other 4xx is the caller's mistake and is final."""
API_KEY_VARIABLE = "RETRIEVER_API_KEY"
"""Environment variable with the API key, for the server and for its clients."""
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_ATTEMPTS = 6
"""One, and five retries."""
WAITS = Waits(initial_s=0.1, factor=6.0, longest_s=60.0)
"""Waits of 0.1, 0.6, 3.6, 22 and 60 s, each times 0.5 to 1: a lost connection costs little, and a
server that is back after half a minute is found within the deadline."""
_ATTEMPT_S = 30.0
"""Longest wait for one answer, unless the deadline is far: above the server's own 25 s."""
_EXCERPT_CHARS = 200
_NO_SUCH_PATH = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED)
"""What a server of another program answers to a path that it does not have."""


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """How long and how often a client tries."""

    timeout_s: float = DEFAULT_TIMEOUT_S
    """Deadline of one request, all its attempts and waits together."""
    attempts: int = DEFAULT_ATTEMPTS
    """Attempts within the deadline."""
    api_key: str | None = field(default=None, repr=False)
    """None takes the one of the environment, if any."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.attempts < 1:
            raise ConfigError(
                "a retrieval client needs timeout_s above 0 and attempts of 1 or more; got "
                f"timeout_s={self.timeout_s}, attempts={self.attempts}"
            )

    @property
    def attempt_s(self) -> float:
        """Longest wait for the answer to one attempt."""
        return max(_ATTEMPT_S, self.timeout_s / 4)

    @property
    def headers(self) -> dict[str, str]:
        """The key, where there is one. Raises ConfigError for one that no header can carry, which
        httpx would answer with a sentence that holds the key."""
        key = self.api_key or os.environ.get(API_KEY_VARIABLE, "").strip()
        if not is_header_word(key):
            raise ConfigError(
                f"the API key of the retrieval client (api_key or {API_KEY_VARIABLE}) must be one "
                "line of letters, digits and signs without blanks"
            )
        return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass(frozen=True)
class Source:
    """Which index, and which qrels, an answer comes from. Empty: the server does not say."""

    fingerprint: str = ""
    qrels_fingerprint: str = ""


@dataclass(frozen=True)
class Reply:
    """A usable answer: one entry for each question, and where it comes from."""

    result: list[object]
    source: Source
    num_truncated: int = 0
    """Queries that the server cut."""
    coverage: float = 1.0
    """Share of the passages that was searched; below 1 only where that was allowed."""


@dataclass(frozen=True)
class Address:
    """Of a server, and the name of an index there."""

    base: str
    """`http://host:port`."""
    index: str | None = None

    @property
    def params(self) -> dict[str, str]:
        """Of each request."""
        return {"index": self.index} if self.index is not None else {}


def address_of(url: str, index: str | None = None) -> Address:
    """Reads a URL with or without `/retrieve` and `?index=NAME`. Raises ConfigError."""
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        asked = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        valid, parts, asked = False, urlsplit(""), {}
    names = asked.pop("index", [])
    if not valid or asked or len(names) > 1 or (names and index not in (None, names[0])):
        raise ConfigError(
            f"{url!r} is not the URL of a retrieval server; it looks like http://127.0.0.1:8000 or "
            "http://127.0.0.1:8000/retrieve?index=NAME"
        )
    path = parts.path.rstrip("/").removesuffix("/retrieve").rstrip("/")
    base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Address(base, names[0] if names else index)


def read_reply(response: httpx.Response, expected: int, *, allow_degraded: bool = False) -> Reply:
    """The `result` of an answer, with one entry for each of the `expected` questions.

    Raises TransientError for overload and garbled answers, and for one from a part of the passages
    unless allow_degraded; RetrieverError for a refusal.
    """
    url = response.request.url
    answer = read_object(response)
    coverage = _coverage(answer)
    if coverage < 1 and not allow_degraded:
        raise TransientError(
            f"{url} answered from {100 * coverage:.3g} % of the passages, which makes ranks and "
            "lists wrong",
            retry_after_s=1.0,
        )
    result = answer.get("result")
    if "result" not in answer:
        raise TransientError(_not_ours(response))
    if not isinstance(result, list) or len(result) != expected:
        size = len(result) if isinstance(result, list) else type(result).__name__
        raise TransientError(f"{url} answered {size} results for {expected} questions")
    truncated = answer.get("truncated")
    return Reply(
        result=result,
        source=Source(
            response.headers.get(FINGERPRINT_HEADER, ""), response.headers.get(QRELS_HEADER, "")
        ),
        num_truncated=len(truncated) if isinstance(truncated, list) else 0,
        coverage=coverage,
    )


def read_ready(response: httpx.Response) -> Reply:
    """Which index `/readyz` names; none where the server has no such path, so that nothing is taken
    from a cache. Raises as `read_reply` does."""
    if is_foreign(response):
        return Reply(result=[], source=Source())
    card = read_object(response)
    if "fingerprint" not in card:
        raise TransientError(_not_ours(response))
    source = Source(str(card["fingerprint"] or ""), str(card.get("qrels_fingerprint") or ""))
    return Reply(result=[], source=source)


def is_foreign(response: httpx.Response) -> bool:
    """Whether another program answers, which has no path for its health."""
    return response.status_code in _NO_SUCH_PATH


def start_command(url: str) -> str:
    """What starts a server at this address, as typed."""
    port = urlsplit(url).port
    chosen = f" --port {port}" if port else ""
    return f'"convsearch serve --index INDEX --qrels QRELS{chosen}"'


def read_info(response: httpx.Response) -> IndexInfo | None:
    """The index that `/readyz` describes. None where the server is another program's (it has no
    such path, or something else there), or where its engine does not tell.

    Raises TransientError for overload, RetrieverError for any other refusal.
    """
    if is_foreign(response):
        return None
    if response.status_code != httpx.codes.OK:
        read_object(response)  # raises
    try:
        card = IndexCard.model_validate_json(response.content)
    except ValueError:
        return None
    if card.fingerprint is None or card.num_passages is None:
        return None
    return IndexInfo(
        engine=card.engine, num_passages=card.num_passages, fingerprint=card.fingerprint
    )


def read_object(response: httpx.Response) -> dict[str, object]:
    """The JSON object of an answer. Raises as `read_reply` does."""
    if response.status_code != httpx.codes.OK:
        named = response.headers.get(REQUEST_ID_HEADER)
        name = f" (request {named})" if named else ""
        sentence = (
            f"{response.request.url} answered {response.status_code}: {explain(response)}{name}"
        )
        if response.status_code in RETRIED_STATUS:
            raise TransientError(sentence, retry_after_s=retry_after_s(response.headers))
        raise RefusedError(
            sentence, status=response.status_code, unknown_ids=_unknown_ids(response)
        )
    try:
        answer = json_value(response.content, str(response.request.url))
    except DataError:
        answer = None
    if not isinstance(answer, dict):
        raise TransientError(_not_ours(response))
    return answer


def gave_up(url: str, attempts: int, seconds: float, error: BaseException) -> RetrieverError:
    """The error after the last attempt: what was asked, how often, what came, what to do."""
    reason = str(error) or type(error).__name__
    return RetrieverError(
        f"{url}: no usable answer after {attempts} attempt(s) in {seconds:.1f} s: {reason}; check "
        'that the retrieval server runs ("convsearch serve") and read its log'
    )


def _unknown_ids(response: httpx.Response) -> list[str]:
    """The ids of the request that the server says it does not have; none where it does not say."""
    try:
        named = parse_json(response.content, "").get("unknown")
    except DataError:
        return []
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []


def _coverage(answer: Mapping[str, object]) -> float:
    """Share of the passages behind an answer; 0 for a degraded one that does not say."""
    if not answer.get("degraded"):
        return 1.0
    coverage = answer.get("coverage")
    return float(coverage) if isinstance(coverage, int | float) else 0.0


def _not_ours(response: httpx.Response) -> str:
    return (
        f"{response.request.url} answered with something that is not a retrieval result "
        f"({explain(response)}); check that the URL is that of the retrieval server"
    )


def explain(response: httpx.Response) -> str:
    """The server's own sentence, or the beginning of whatever it sent."""
    try:
        return str(parse_json(response.content, "")["error"])
    except (DataError, KeyError):
        kind = response.headers.get("content-type", "no content type")
        text = " ".join(response.text.split())[:_EXCERPT_CHARS]
        return f"{kind}: {text!r}" if text else f"{kind}, empty"
