"""The node `retriever` of the configuration."""

import pytest
from convsearch_verl.settings import RetrieverSettings, retriever_settings

from convsearch.errors import ConfigError


def test_values_are_taken_over() -> None:
    settings = retriever_settings({"url": " http://h:1 ", "topk": 10, "max_wait_s": 0})
    assert settings == RetrieverSettings(url="http://h:1", topk=10, max_wait_s=0)


def test_without_a_node_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_URL", "http://h:2")
    assert retriever_settings(None).url == "http://h:2"


@pytest.mark.parametrize("url", [None, "", "  "])
def test_no_address_says_what_to_do(url: str | None) -> None:
    with pytest.raises(ConfigError, match="convsearch serve"):
        retriever_settings({"url": url})


@pytest.mark.parametrize(
    ("name", "value"),
    [("topk", 0), ("topk", 1.5), ("topk", True), ("attempts", -1), ("timeout_s", "long")],
)
def test_a_bad_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"retriever\.{name}"):
        retriever_settings({"url": "http://h:1", name: value})


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"retriever\.tpok"):
        retriever_settings({"url": "http://h:1", "tpok": 1})
