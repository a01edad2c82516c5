"""Who reaches a server, and with which key."""

import socket
from pathlib import Path

import pytest

from convsearch.errors import ConfigError, MissingFileError
from convsearch.listening import check_exposure, listen, read_api_key

KEY = "SOME_API_KEY"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    check_exposure(host, has_key=False, allowed=False, key_variable=KEY)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "retriever.example"])
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
