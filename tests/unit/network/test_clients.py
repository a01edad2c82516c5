"""Proxies and certificates of the environment: named where they are wrong, never on loopback."""

import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from convsearch.cli import checks
from convsearch.errors import ConfigError
from convsearch.hub.access import open_hub
from convsearch.infer.hub_models import find_model
from convsearch.infer.openai_engine import OpenaiEngine
from convsearch.network.clients import async_client, check_environment, http_client
from convsearch.retrieval.async_client import AsyncRetrieverClient
from convsearch.retrieval.client import RetrieverClient

AWAY = "http://192.0.2.1:8000"
"""An address that is given to nobody (RFC 5737)."""
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
WRONG = [
    ("NO_PROXY", "[::1]", "write ::1"),
    ("no_proxy", "localhost,[fe80::1]", "write fe80::1"),
    ("NO_PROXY", "::1/128", "write ::1"),
    ("NO_PROXY", "http://h:port", "mend or remove it"),
    ("ALL_PROXY", "socks5://127.0.0.1:1080", "needs the package socksio"),
    ("all_proxy", "socks5h://127.0.0.1:1080", "needs the package socksio"),
    ("ALL_PROXY", "socks://127.0.0.1:1080", "begins with http://"),
    ("HTTPS_PROXY", "ftp://me:secret@h", "begins with http://"),
    ("HTTP_PROXY", "http://", "not the address of a proxy"),
    ("http_proxy", ":8080", "not the address of a proxy"),
    ("HTTP_PROXY", "http://h:port", "not the address of a proxy"),
    ("HTTP_PROXY", "http://h:99999", "not the address of a proxy"),
    ("HTTP_PROXY", "http://[::1", "not the address of a proxy"),
    ("HTTP_PROXY", "http://me:sec ret@h", "not the address of a proxy"),
    ("HTTP_PROXY", "http://me:secret/@h:1", "not the address of a proxy"),
    ("SSL_CERT_FILE", "/nowhere/at/all.pem", "there is no"),
    ("SSL_CERT_DIR", "/nowhere/at/all", "there is no"),
]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_variable_is_named_by_every_client(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    if name.lower() == "no_proxy":
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    makers = (http_client, async_client, RetrieverClient, AsyncRetrieverClient)
    for make in (*makers, partial(OpenaiEngine, "m")):
        with pytest.raises(ConfigError, match=f"^{name}: ") as refused:
            make(AWAY)
        assert said in str(refused.value)
        assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match=name):
        open_hub()
    with pytest.raises(ConfigError, match=name):
        find_model("someone/model")
    [finding] = checks.environment()
    assert (finding.state, said in finding.found) == (checks.FAIL, True)
    assert checks.server(AWAY).state == checks.FAIL


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9", "127.8.8.8"])
def test_addresses_of_this_machine_need_nothing_of_the_environment(
    host: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value, _ in WRONG:
        monkeypatch.setenv(name, value)
    http_client(f"http://{host}").close()
    OpenaiEngine("m", f"http://{host}/v1")
    RetrieverClient(f"http://{host}").close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NO_PROXY", "::1, localhost,127.0.0.1,192.168.0.0/16,.example.org,example.org:80"),
        ("NO_PROXY", "http://example.org,*.a.example"),
        ("NO_PROXY", " , ,"),
        ("HTTP_PROXY", "proxy.example.org:3128"),
        ("HTTPS_PROXY", "https://me:secret@proxy.example.org"),
        ("ALL_PROXY", "http://[::1]:3128/"),
    ],
)
def test_what_is_right_is_taken(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    http_client(AWAY).close()
    used = [] if name == "NO_PROXY" else [name]
    assert check_environment() == used
    assert [f.state for f in checks.environment()] == [checks.OK] * len(used)
    assert all("secret" not in f.found for f in checks.environment())


def test_no_proxy_for_all_leaves_the_others_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "*")
    http_client(AWAY).close()


def test_a_file_without_certificates_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "certificates.pem"
    broken.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE: holds no certificates"):
        http_client("https://192.0.2.1")
    [finding] = checks.environment()
    assert finding.state == checks.FAIL


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A port that notes what is sent to it and answers nothing of use."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 418 No\r\ncontent-length: 0\r\n\r\n")
                connection.close()

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)


def test_a_proxy_is_used_for_other_machines_and_never_for_this_one(
    proxy: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
):
    url, heard = proxy
    monkeypatch.setenv("HTTP_PROXY", url)
    with http_client(AWAY) as client:
        assert client.get(AWAY).status_code == 418
    assert heard[0].startswith(b"GET http://192.0.2.1:8000/")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        here = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with http_client(here) as client, pytest.raises(httpx.ConnectError):
            client.get(here)
    assert len(heard) == 1
