"""`convsearch data topiocqa|qrecc|cast|mtrag|own`: flags reach the converters, faults are told."""

import json
from pathlib import Path

import pytest
from raw_files import (
    TOPIOCQA_COUNTS,
    plain_catalogue,
    write_cast,
    write_qrecc,
    write_topiocqa,
)
from raw_mtrag import COUNTS as MTRAG_COUNTS
from raw_mtrag import write_mtrag
from typer.testing import CliRunner

from convsearch.cli.data import app
from convsearch.data.dataset import load_dataset
from convsearch.errors import ConfigError, ConvsearchError, DataError, MissingFileError


def run(*words: object) -> str:
    """Output of a command that succeeds."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def fails(kind: type[ConvsearchError], told: str, *words: object) -> None:
    with pytest.raises(kind, match=told):
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_topiocqa_takes_its_flags(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    expect = [
        word for item in TOPIOCQA_COUNTS.items() for word in ("--expect", "{}={}".format(*item))
    ]
    words = ["topiocqa", "--raw", raw, "--out", tmp_path / "out", "--offline", *expect]
    told = run(*words, "--gold", "first", "--validation-share", 0, "--keep-one-in", 50)
    assert "num_passages_read" in told
    data = load_dataset(tmp_path / "out")
    assert data.qrels["topiocqa-train_1_2"] == {"2": 1}
    assert len(data.turns("train")) == 5
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert settings["keep_one_in"] == 50
    fails(ConfigError, "below 1", *words, "--validation-share", 1)
    fails(ConfigError, "name=count", *words, "--expect", "x")
    fails(ConfigError, r"gold \(there 'first', now 'all'\); keep_one_in \(there 50", *words)
    fails(ConfigError, "not counted", *words, "--expect", "x=1", "--fresh")
    kept = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert kept == settings, "what fails leaves the output as it was"


def test_qrecc_says_that_counts_differ(tmp_path: Path) -> None:
    raw = write_qrecc(tmp_path / "raw")
    words = ["qrecc", "--raw", raw, "--out", tmp_path / "out", "--offline"]
    fails(DataError, "num_raw_train_turns is 3 and should be 29,596", *words)
    assert "turns of the test split" in run(*words, "--allow-count-mismatch")


def test_cast_without_its_collection(tmp_path: Path) -> None:
    raw = write_cast(tmp_path / "raw", 2021)
    catalogue = plain_catalogue(tmp_path / "downloads.json")
    words = ["cast", "--raw", raw, "--out", tmp_path / "out", "--catalogue", catalogue]
    told = run(*words, "--year", 2021, "--offline")
    assert "there is no corpus.jsonl" in told
    assert len(load_dataset(tmp_path / "out").turns("test")) == 2
    fails(ConfigError, "2019, 2020 or 2021", *words, "--year", 2022)
    fails(MissingFileError, "msmarco-docs", *words, "--year", 2021, "--offline", "--with-corpus")
    fails(MissingFileError, "2020qrels.txt", *words, "--year", 2020, "--verify")


def test_mtrag_takes_its_flags(tmp_path: Path) -> None:
    raw, out = write_mtrag(tmp_path / "raw"), tmp_path / "out"
    expect = [word for item in MTRAG_COUNTS.items() for word in ("--expect", "{}={}".format(*item))]
    words = ["mtrag", "--source", raw, "--out", out]
    fails(DataError, "num_mtrag_turns is 40 and should be 777", *words)
    assert "num_mtragun_turns" in run(*words, *expect, "--others", 9, "--test-share", 0.5)
    data = load_dataset(out)
    assert data.name == "mtrag_sample"
    assert len({turn.conv_id for turn in data.turns("test")}) == 10
    fails(ConfigError, r"others \(there 9, now None\)", *words, *expect, "--test-share", 0.5)
    one = run(*words, "--domain", "fiqa", "--allow-count-mismatch", "--fresh")
    assert "num_mtrag_turns                       10" in one
    fails(ConfigError, "--domain takes clapnq, cloud, fiqa, govt, got x", *words, "--domain", "x")


def test_a_folder_without_corpus_that_does_not_say_so_is_not_opened(tmp_path: Path) -> None:
    raw = write_cast(tmp_path / "raw", 2021)
    catalogue = plain_catalogue(tmp_path / "downloads.json")
    out = tmp_path / "out"
    run("cast", "--raw", raw, "--out", out, "--catalogue", catalogue, "--year", 2021, "--offline")
    passport = json.loads((out / "run.json").read_text())
    del passport["settings"]["without_corpus"]
    (out / "run.json").write_text(json.dumps(passport))
    with pytest.raises(MissingFileError, match=r"corpus\.jsonl missing"):
        load_dataset(out)


def test_own_conversations(tmp_path: Path) -> None:
    talk = {"id": "a", "split": "dev", "turns": [{"question": "who?", "relevant": ["d1"]}]}
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk))
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "d1", "text": "x"}))
    words = ["own", "--conversations", tmp_path / "talks.jsonl", "--corpus", tmp_path / "p.jsonl"]
    run(*words, "--out", tmp_path / "out", "--name", "toy")
    assert load_dataset(tmp_path / "out").name == "toy"
