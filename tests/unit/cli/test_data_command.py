"""`convsearch data`: writes a folder and says what is in it; errors reach the top as ours."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convsearch.cli.data import app
from convsearch.data.dataset import load_dataset
from convsearch.errors import MissingFileError


def test_mini_writes_a_data_set(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["mini", "--out", str(tmp_path / "mini"), "--seed", "7"])
    assert done.exit_code == 0
    dataset = load_dataset(tmp_path / "mini")
    assert f"{len(dataset.turns('test')):,}" in done.stdout
    assert json.loads((tmp_path / "mini" / "run.json").read_text())["seed"] == 7


def test_pooled_writes_a_data_set(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    turn = {"id": "c_1", "conv": "c", "turn": 1, "split": "dev", "question": "who?"}
    turn |= {"history": [], "gold": ["d1"]}
    (source / "dev.jsonl").write_text(json.dumps(turn))
    (source / "corpus.jsonl").write_text(json.dumps({"id": "d1", "text": "x"}))
    command = ["pooled", "--source", str(source), "--out", str(tmp_path / "out"), "--name", "toy"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert load_dataset(tmp_path / "out").name == "toy"


def test_errors_are_not_swallowed(tmp_path: Path) -> None:
    command = ["pooled", "--source", str(tmp_path / "no"), "--out", str(tmp_path / "out")]
    with pytest.raises(MissingFileError, match="no such folder"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
