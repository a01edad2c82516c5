"""Paths with `=` and `,` in them, wherever a command takes NAME=PATH or several paths."""

import json
import os
from pathlib import Path

import pytest

from convsearch.cli.agent_training import _named
from convsearch.cli.compare import _read_methods
from convsearch.errors import ConfigError, MissingFileError
from convsearch.named_paths import named_path, path_list
from convsearch.pipeline.methods import MethodOptions, choose_methods
from convsearch.types import Turn
from retriever_server.flags import named_indexes

ODD = "lr=3e-4,bs=8"
TURN = Turn(qid="q1", conv_id="c", turn=1, split="test", question="who?")
REWRITE = {
    "qid": "q1", "status": "ok", "text": "query", "response": "r", "seed": 1, "candidate": 0,
    "num_tokens": 1,
}  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ODD / "idx").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    return tmp_path / ODD


@pytest.mark.parametrize("absolute", [True, False])
def test_what_exists_is_a_path(odd: Path, absolute: bool) -> None:
    word = str(odd / "idx") if absolute else f"{ODD}/idx"
    assert named_path(word) == (None, word)
    assert named_path(f"mine={word}") == ("mine", word)
    assert named_path(ODD) == (None, ODD)
    assert path_list(word) == [word]
    assert path_list(f"plain,{word},{ODD},none,plain") == ["plain", word, ODD, "none", "plain"]


def test_what_does_not_exist_is_cut_at_the_name_alone(odd: Path) -> None:
    assert named_path("a=b") == ("a", "b")
    assert named_path("a=b=c,d") == ("a", "b=c,d")
    assert named_path(f".{os.sep}lr=1{os.sep}gone") == (None, f".{os.sep}lr=1{os.sep}gone")
    assert path_list("a,b") == ["a", "b"]
    assert path_list("") == [""]
    assert named_path("x" * 5000 + "=b") == ("x" * 5000, "b")


def test_serve_takes_them(odd: Path) -> None:
    found = named_indexes([f"{odd}/idx", "b=plain"], [], [])
    assert {name: str(one.index_path) for name, one in found.items()} == {
        "default": f"{odd}/idx",
        "b": "plain",
    }
    gone = named_indexes([f"{odd}/gone"], [], [])
    assert str(gone["default"].index_path) == f"{odd}/gone"
    with pytest.raises(ConfigError, match="one path, as NAME=PATH"):
        named_indexes(["a="], [], [])


def test_eval_takes_them(odd: Path) -> None:
    path = odd / "a=b.jsonl"
    path.write_text(json.dumps(REWRITE) + "\n")
    assert not MethodOptions(rewrites=[str(path)]).is_table
    assert not MethodOptions(rewrites=[f"{ODD}/a=b.jsonl"]).is_table
    assert MethodOptions(rewrites=[f"mine={path}"]).is_table
    options = MethodOptions(prompted=[f"llm={path}"], rewrites=[f"mine={ODD}/a=b.jsonl"])
    assert [m.name for m in choose_methods([TURN], options)] == ["llm", "mine"]
    with pytest.raises(ConfigError, match="as NAME=FILE"):
        choose_methods([TURN], MethodOptions(prompted=[f"{ODD}/a=b.jsonl"]))


def test_compare_takes_them(odd: Path) -> None:
    for word in (ODD, str(odd), f"mine={ODD},plain", f"{odd}/idx"):
        with pytest.raises(MissingFileError, match=r"metrics\.json: no such file"):
            _read_methods([word])
    with pytest.raises(ConfigError, match="several seeds need a name"):
        _read_methods(["plain,none"])


def test_agent_curves_take_them(odd: Path) -> None:
    assert _named(f"{odd}/idx") == ("idx", odd / "idx")
    assert _named(f"run={odd}") == ("run", odd)
