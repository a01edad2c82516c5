"""One question at a time: the class for scripts and the command, with a real model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rewriting import some_turns
from typer.testing import CliRunner

from convsearch import Rewriter
from convsearch.cli.main import app, main
from convsearch.errors import CheckpointError, DataError
from convsearch.infer import SamplingParams, infer_rewrites, open_engine
from convsearch.prompts.asking import asking_of, write_asking


@pytest.fixture(scope="module")
def model(taught_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "model"
    shutil.copytree(taught_model, folder)
    write_asking(folder, asking_of("nano", max_response_tokens=24))
    return folder


def test_it_says_what_a_run_of_inference_would(model: Path, tmp_path: Path):
    turns = [turn for turn in some_turns(9) if turn.history][:4]
    expected = infer_rewrites(
        turns,
        open_engine("transformers", str(model), device="cpu"),
        out_path=tmp_path / "o.jsonl",
        style="nano",
        params=SamplingParams(temperature=0, max_tokens=24),
        seed=0,
        batch_size=1,
    )
    with Rewriter.from_pretrained(str(model), device="cpu") as rewriter:
        for turn, wanted in zip(turns, expected, strict=True):
            history = [message.text for message in turn.history]
            found = rewriter.rewrite(turn.question, history)
            assert (found.response, found.text) == (wanted.response, wanted.text)
            assert rewriter.query(turn.question, history) == (wanted.text or turn.question)


def test_the_command_prints_the_query_alone(model: Path):
    flags = ["--history", "amber birch", "--history", "castle", "--device", "cpu"]
    command = ["rewrite", "delta ember", *flags, "--model", str(model)]
    done = subprocess.run(
        [sys.executable, "-m", "convsearch.cli", *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with Rewriter.from_pretrained(str(model), device="cpu") as rewriter:
        assert done.stdout == rewriter.query("delta ember", ["amber birch", "castle"]) + "\n"
    assert done.stderr == ""


def test_what_is_malformed_is_said_and_the_question_is_the_query(model: Path):
    command = ["rewrite", "delta ember", "--model", str(model), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--prompt", "cot"])
    assert done.exit_code == 0
    assert done.stdout == "delta ember\n"
    assert "malformed for prompt style cot" in done.stderr


def test_halves_of_pairs_become_question_marks():
    with Rewriter(
        open_engine("echo"), style="plain", params=SamplingParams(temperature=0)
    ) as rewriter:
        assert rewriter.query("how \ud83d?", ["a \ud83d", "b"]) == "how ??"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["why?", "--history", "a"], "odd number of messages (1)"),
        ([" "], "the question is empty"),
        (["why?", "--shots", "9"], "shots=9"),
    ],
)
def test_bad_input_is_a_sentence_and_code_2(arguments: list[str], said: str, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convsearch", "rewrite", "--engine", "echo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_damaged_file_is_a_sentence_for_every_command_that_asks(
    model: Path, tmp_path: Path, monkeypatch, capsys
):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "convsearch.json").write_text(json.dumps({"format": 99}))
    for command in (
        ["rewrite", "why?"],
        ["serve-rewriter", "--port", "0"],
        ["infer", "--dataset", "data/mini", "--out", str(tmp_path / "o.jsonl")],
        ["distill", "--dataset", "data/mini", "--out", str(tmp_path / "d")],
        ["data", "prompts", "--dataset", "data/mini", "--out", str(tmp_path / "p.parquet")],
    ):
        argv = ["convsearch", *command, "--model", str(folder)]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "format 99; this one reads 1" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(DataError, match="newer version"):
        Rewriter.from_pretrained(str(folder))
    with pytest.raises(CheckpointError):
        Rewriter.from_pretrained(str(tmp_path / "nowhere"))
