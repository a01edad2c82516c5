"""`convsearch index` on the command line."""

import json
from pathlib import Path

import pytest
import typer
from small_corpus import random_passages, write_corpus
from typer.testing import CliRunner, Result

from convsearch.cli.index import command
from convsearch.errors import ConfigError, MissingFileError


def _run(*flags: str) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(flags))


def test_an_index_with_a_passport(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, random_passages(9))
    result = _run("--corpus", str(corpus), "--out", str(tmp_path / "index"), "--k1", "1.5")
    assert result.exit_code == 0
    assert "bm25 index of 9 passages" in result.stdout
    assert json.loads((tmp_path / "index" / "manifest.json").read_text())["k1"] == 1.5
    passport = json.loads((tmp_path / "index" / "run.json").read_text())
    assert passport["counts"] == {"passages": 9}
    assert str(corpus) in passport["inputs"]


def test_mistakes_reach_the_top_as_errors_for_people(tmp_path: Path) -> None:
    missing = _run("--corpus", str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "index"))
    assert isinstance(missing.exception, MissingFileError)
    corpus = str(write_corpus(tmp_path, random_passages(3)))
    dense = _run("--corpus", corpus, "--out", str(tmp_path / "index"), "--engine", "dense")
    assert isinstance(dense.exception, ConfigError)
    assert "--encoder" in str(dense.exception)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("flag", ["--corpus", "--out"])
def test_required_flags_are_named(tmp_path: Path, flag: str) -> None:
    flags = {"--corpus": str(tmp_path / "c"), "--out": str(tmp_path / "o")}
    del flags[flag]
    result = _run(*[part for pair in flags.items() for part in pair])
    assert result.exit_code == 2
    assert flag in result.stderr


@pytest.mark.parametrize(
    ("engine", "option", "value", "owner"),
    [
        ("bm25", "--encoder", "ance", "dense"),
        ("bm25", "--java-heap", "4g", "lucene"),
        ("lucene", "--workers", "2", "bm25"),
        ("dense", "--k1", "0.82", "bm25 or lucene"),
        ("lucene", "--passage-prefix", "passage: ", "dense"),
    ],
)
def test_options_of_other_engines_are_not_ignored(
    tmp_path: Path, engine: str, option: str, value: str, owner: str
) -> None:
    corpus = str(write_corpus(tmp_path, random_passages(3)))
    out = tmp_path / "index"
    ended = _run("--corpus", corpus, "--out", str(out), "--engine", engine, option, value)
    assert isinstance(ended.exception, ConfigError)
    sentence = f"{option} is not for a {engine} index; leave it out, or say --engine {owner}"
    assert str(ended.exception) == sentence
    assert not out.exists()


@pytest.mark.parametrize("name", ["kb.csv", "kb.jsonl"])
def test_passages_of_other_programs_are_indexed_as_they_are(tmp_path: Path, name: str) -> None:
    content = {
        "kb.csv": 'id,title,text\n7,Mill,"Built, they say, in 1911."\n8,Ferry,An hour.\n',
        "kb.jsonl": '{"id": 7, "contents": "\\"Mill\\"\\nBuilt, they say, in 1911."}\n'
        '{"id": 8, "contents": "\\"Ferry\\"\\nAn hour."}\n',
    }
    (tmp_path / name).write_text(content[name])
    result = _run("--corpus", str(tmp_path / name), "--out", str(tmp_path / "idx"))
    assert result.exit_code == 0, result.output
    passages = (tmp_path / "idx" / "passages.jsonl").read_text()
    assert '"Built, they say, in 1911."' in passages
