"""Waits, addresses and keys of the clients."""

import time

import httpx
import pytest

from convsearch.errors import ConfigError, RetrieverError
from convsearch.network.retries import Backoff, TransientError
from convsearch.retrieval.transport import (
    DEFAULT_ATTEMPTS,
    DEFAULT_TIMEOUT_S,
    WAITS,
    Address,
    ClientSettings,
    address_of,
    read_object,
    read_ready,
)

LOST = httpx.ConnectError("refused")


def test_five_retries_within_two_minutes_bridge_half_a_minute() -> None:
    assert (DEFAULT_ATTEMPTS - 1, DEFAULT_TIMEOUT_S) == (5, 120)
    for _ in range(200):
        backoff = Backoff(time.monotonic() + DEFAULT_TIMEOUT_S, WAITS)
        waits = [backoff(LOST) for _ in range(5)]
        assert all(isinstance(wait, float) for wait in waits)
        assert 30 < sum(waits) < DEFAULT_TIMEOUT_S
        assert waits == sorted(waits)
        assert waits[0] <= 0.1


def test_waits_differ_between_clients() -> None:
    assert len({Backoff(time.monotonic() + 120, WAITS)(LOST) for _ in range(50)}) == 50


def test_what_the_server_asks_for_is_kept_and_spread() -> None:
    busy = TransientError("busy", retry_after_s=1)
    waits = [Backoff(time.monotonic() + 120, WAITS)(busy) for _ in range(200)]
    assert 1 <= min(waits) < 1.3 < 1.7 < max(waits) <= 2
    later = TransientError("busy", retry_after_s=90)
    assert 90 <= Backoff(time.monotonic() + 120, WAITS)(later) < 120
    assert Backoff(time.monotonic() + 80, WAITS)(later) is False


@pytest.mark.parametrize(("said", "wait_s"), [("7", 7), ("²", 0), ("-1", 0), ("Wed, 21 Oct", 0)])
def test_what_the_server_asks_for_is_read(said: str, wait_s: float) -> None:
    asked = httpx.Request("POST", "http://h/retrieve")
    headers = {"Retry-After": said.encode()}
    with pytest.raises(TransientError, match="503") as busy:
        read_object(httpx.Response(503, headers=headers, request=asked))
    assert busy.value.retry_after_s == wait_s


def test_no_wait_beyond_the_deadline_and_none_for_what_is_final() -> None:
    assert Backoff(time.monotonic() + 0.01, WAITS)(LOST) is False
    assert Backoff(time.monotonic() + 120, WAITS)(RetrieverError("422")) is False


@pytest.mark.parametrize(
    ("url", "index", "address"),
    [
        ("http://h:1", None, Address("http://h:1")),
        (" http://h:1/retrieve/ ", None, Address("http://h:1")),
        ("https://h/search/retrieve", None, Address("https://h/search")),
        ("http://h:1/retrieve?index=test", None, Address("http://h:1", "test")),
        ("http://h:1?index=test", "test", Address("http://h:1", "test")),
        ("http://h:1", "test", Address("http://h:1", "test")),
    ],
)
def test_addresses(url: str, index: str | None, address: Address) -> None:
    assert address_of(url, index) == address


@pytest.mark.parametrize("url", ["http://h?topk=1", "http://h?index=a&index=b", "http://h?x", "h"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the URL"):
        address_of(url)
    with pytest.raises(ConfigError, match="is not the URL"):
        address_of("http://h?index=a", "b")


def test_the_key_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_API_KEY", "from-environment")
    assert ClientSettings().headers == {"Authorization": "Bearer from-environment"}
    given = ClientSettings(api_key="hush")
    assert given.headers == {"Authorization": "Bearer hush"}
    assert "hush" not in repr(given)
    monkeypatch.delenv("RETRIEVER_API_KEY")
    assert ClientSettings().headers == {}


@pytest.mark.parametrize("key", ["schlüssel", "hush\nhush", "two words"])
def test_a_key_that_no_header_carries_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigError, match="one line of letters") as refused:
        _ = ClientSettings(api_key=key).headers
    assert key not in str(refused.value)


def test_patience_with_one_attempt_grows_with_the_deadline() -> None:
    assert ClientSettings().attempt_s == 30
    assert ClientSettings(timeout_s=600).attempt_s == 150


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_the_path_does_not_tell_its_index(status: int) -> None:
    asked = httpx.Request("GET", "http://h/readyz")
    reply = read_ready(httpx.Response(status, json={"detail": "Not Found"}, request=asked))
    assert reply.source.fingerprint == ""
    with pytest.raises(RetrieverError, match="answered 401"):
        read_ready(httpx.Response(401, json={"error": "key"}, request=asked))
