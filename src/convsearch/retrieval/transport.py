"""What both HTTP clients share: the address, which failures are tried again, reading an answer."""

import ipaddress
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from convsearch.errors import ConfigError, RetrieverError

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
"""Overload and broken servers; any other 4xx is the caller's mistake and is final."""
API_KEY_VARIABLE = "RETRIEVER_API_KEY"
"""Environment variable with the API key, for the server and for its clients."""
WAIT_INITIAL_S = 0.1
WAIT_MAX_S = 5.0
_EXCERPT_CHARS = 200
_DEFAULT_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """How long and how often a client tries."""

    timeout_s: float = _DEFAULT_TIMEOUT_S
    """Deadline of one call, all its attempts and waits together."""
    attempts: int = 5
    """Attempts within the deadline; waits between them double, with jitter, up to 5 s."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.attempts < 1:
            raise ConfigError(
                "a retrieval client needs timeout_s above 0 and attempts of 1 or more; got "
                f"timeout_s={self.timeout_s}, attempts={self.attempts}"
            )


class TransientError(Exception):
    """An answer that may be better the next time. Never leaves the clients."""


def base_url(url: str) -> str:
    """`http://host:port` of a server, given with or without `/retrieve`. Raises ConfigError."""
    bare = url.strip().rstrip("/").removesuffix("/retrieve").rstrip("/")
    try:
        parts = urlsplit(bare)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"{url!r} is not the URL of a retrieval server; it looks like http://127.0.0.1:8000"
        )
    return bare


def reads_environment(base: str) -> bool:
    """Whether proxies of the environment apply: not on this machine itself."""
    host = urlsplit(base).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def is_transient(error: Exception) -> bool:
    """Which failures are worth another attempt: of the connection, and TransientError."""
    return isinstance(error, TransientError | httpx.TransportError)


def read_result(response: httpx.Response, expected: int) -> list[object]:
    """The `result` of an answer, with one entry for each of the `expected` questions.

    Raises TransientError for overload and garbled answers, RetrieverError for a refusal.
    """
    url = response.request.url
    if response.status_code != httpx.codes.OK:
        sentence = f"{url} answered {response.status_code}: {_explain(response)}"
        if response.status_code in RETRIED_STATUS:
            raise TransientError(sentence)
        raise RetrieverError(sentence)
    try:
        result = json.loads(response.content)["result"]
    except (ValueError, KeyError, TypeError):
        raise TransientError(
            f"{url} answered with something that is not a retrieval result "
            f"({_explain(response)}); check that the URL is that of the retrieval server"
        ) from None
    if not isinstance(result, list) or len(result) != expected:
        size = len(result) if isinstance(result, list) else type(result).__name__
        raise TransientError(f"{url} answered {size} results for {expected} questions")
    return result


def gave_up(url: str, attempts: int, seconds: float, error: BaseException) -> RetrieverError:
    """The error after the last attempt: what was asked, how often, what came, what to do."""
    reason = str(error) or type(error).__name__
    return RetrieverError(
        f"{url}: no usable answer after {attempts} attempt(s) in {seconds:.1f} s: {reason}; check "
        'that the retrieval server runs ("convsearch serve") and read its log'
    )


def _explain(response: httpx.Response) -> str:
    """The server's own sentence, or the beginning of whatever it sent."""
    try:
        return str(json.loads(response.content)["error"])
    except (ValueError, KeyError, TypeError):
        kind = response.headers.get("content-type", "no content type")
        text = " ".join(response.text.split())[:_EXCERPT_CHARS]
        return f"{kind}: {text!r}" if text else f"{kind}, empty"
