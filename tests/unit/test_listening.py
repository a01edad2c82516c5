"""Who reaches a server, and with which key."""

import socket
from pathlib import Path

import pytest

from convsearch.errors import ConfigError, MissingFileError
from convsearch.listening import bare_host, check_exposure, in_url, listen, read_api_key

KEY = "SOME_API_KEY"
LOCAL = ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LOCALHOST"]
OPEN = ["0.0.0.0", "::", "[::]", "10.0.0.1", "::ffff:10.0.0.1", "", "retriever.example"]


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_needs_no_key(host: str) -> None:
    check_exposure(host, has_key=False, allowed=False, key_variable=KEY)


@pytest.mark.parametrize(
    "host",
    OPEN,
)
def test_others_need_a_key_or_a_word(host: str) -> None:
    with pytest.raises(ConfigError, match="--allow-unauthenticated"):
        check_exposure(host, has_key=False, allowed=False, key_variable=KEY)
    check_exposure(host, has_key=True, allowed=False, key_variable=KEY)
    check_exposure(host, has_key=False, allowed=True, key_variable=KEY)


def test_the_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert read_api_key(None, KEY) is None
    monkeypatch.setenv(KEY, " from-environment\n")
    assert read_api_key(None, KEY) == "from-environment"
    (tmp_path / "key").write_text("from-file\n")
    assert read_api_key(tmp_path / "key", KEY) == "from-file"
    with pytest.raises(MissingFileError, match="cannot be read"):
        read_api_key(tmp_path / "none", KEY)
    for bad in (b"", b"two words", "clé".encode(), b"a\nb", b"\xff\xfe"):
        (tmp_path / "key").write_bytes(bad)
        with pytest.raises(ConfigError, match="one line"):
            read_api_key(tmp_path / "key", KEY)


def test_the_listener_sends_small_answers_at_once() -> None:
    with listen("127.0.0.1", 0) as listener:
        # what asyncio looks at before it sets TCP_NODELAY
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["[::1]:8000", "localhost:8000", "127.0.0.1:80", ":80"])
def test_an_address_with_a_port_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match="the address alone; give the port as --port"):
        check_exposure(host, has_key=False, allowed=True, key_variable=KEY)


@pytest.mark.parametrize(
    ("host", "bare", "url"),
    [
        ("[::1]", "::1", "[::1]"),
        ("::1", "::1", "[::1]"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("[fe80::1%eth0]", "fe80::1%eth0", "[fe80::1%eth0]"),
    ],
)
def test_brackets_belong_to_urls(host: str, bare: str, url: str) -> None:
    assert (bare_host(host), in_url(host)) == (bare, url)


@pytest.mark.parametrize("host", ["[::1", "::1]", "[[::1]]"])
def test_half_of_the_brackets_is_no_address(host: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        check_exposure(host, has_key=True, allowed=True, key_variable=KEY)


def test_an_address_in_brackets_is_listened_on() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with listen("[::1]", 0) as listener:
        assert listener.getsockname()[0] == "::1"
        port = listener.getsockname()[1]
        listener.listen()
        with pytest.raises(ConfigError, match=rf"cannot listen on \[::1\]:{port} "):
            listen("[::1]", port)
