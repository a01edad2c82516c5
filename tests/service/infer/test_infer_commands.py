"""`convsearch infer` and the door as processes: several engines, a full disk, bad flags."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rewriting import some_turns

from convsearch.cli.infer_door import MODEL_NAMES, infer_main, style_of
from convsearch.errors import ConfigError
from convsearch.files import read_rewrites, write_turns
from convsearch.infer.journal import journal_path, passport_path
from convsearch.prompts.asking import asking_of, write_asking

ROOT = Path(__file__).resolve().parents[3]
DOOR = [sys.executable, str(ROOT / "src" / "infer" / "infer.py")]
NUM_TURNS = 60


@pytest.fixture
def turns(tmp_path: Path) -> Path:
    path = tmp_path / "turns.jsonl"
    write_turns(path, some_turns(NUM_TURNS))
    return path


def door(turns: Path, out: Path, *flags: object) -> list[str]:
    known = ["--model_name_or_path", "unused", "--engine", "echo", "--batch_size", 4]
    paths = ["--input_path", turns, "--output_path", out]
    return [*DOOR, *map(str, [*known, *paths, *flags])]


def run(command: list[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_two_engines_several_samples_and_the_name_of_the_original(turns: Path, tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    done = run(
        door(turns, out, "--dp_size", 2, "--n_samples", 2, "--model_name", "CoT", "--shots", 3)
    )
    assert done.returncode == 0, done.stderr
    assert f"rewrites {2 * NUM_TURNS}, ok {2 * NUM_TURNS}, malformed 0, failed 0" in done.stdout
    assert f"rewriting {2 * NUM_TURNS}/{2 * NUM_TURNS}" in done.stderr
    assert "tokens/s" in done.stderr
    assert [(r.qid, r.candidate) for r in read_rewrites(out)] == [
        (f"q{i}", c) for i in range(NUM_TURNS) for c in (0, 1)
    ]
    settings = json.loads(passport_path(out).read_text())["settings"]
    assert (settings["style"], settings["shots"]) == ("cot", 3)
    again = run(door(turns, out, "--n_samples", 2, "--model_name", "CoT", "--shots", 3))
    assert again.returncode == 0, again.stderr  # one engine or two: the same run


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_when_there_is_room(
    turns: Path, tmp_path: Path
):
    """A limit on the size of files stands in for the disk: the kernel refuses the same call."""
    out = tmp_path / "rewrites.jsonl"

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))

    full = run(door(turns, out, "--dp_size", 2), preexec_fn=no_room)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert "cannot be written" in full.stderr
    assert not out.exists()
    kept = journal_path(out).read_bytes()
    assert kept.endswith(b"\n")
    assert 4 < len(kept.splitlines()) < NUM_TURNS
    assert (len(kept.splitlines()) - 1) % 4 == 0
    rest = run(door(turns, out, "--dp_size", 2))
    assert rest.returncode == 0, rest.stderr
    unbroken = tmp_path / "unbroken.jsonl"
    assert run(door(turns, unbroken)).returncode == 0
    assert out.read_bytes() == unbroken.read_bytes()
    assert not journal_path(out).exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--n_samples", 2, "--temperature", 0], "all the same"),
        (["--model_name", "GPT"], "'GPT' selects no prompt"),
        (["--shots", 2], "shots=2"),
        (["--dp_size", 0], "workers"),
        (["--prompt_file", "/no/such/file"], "no such file"),
    ],
)
def test_bad_flags_are_a_sentence_and_code_2(
    flags: list, said: str, turns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        infer_main(door(turns, tmp_path / "rewrites.jsonl", *flags)[len(DOOR) :])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "rewrites.jsonl").exists()


def test_the_folder_says_it_to_the_door_unless_a_flag_does(
    turns: Path, tmp_path: Path, taught_model: Path, caplog: pytest.LogCaptureFixture
):
    """Of the flags the last counts, so that of `door` are overwritten."""
    folder = tmp_path / "model"
    shutil.copytree(taught_model, folder)
    write_asking(folder, asking_of("nano", max_response_tokens=24))
    model = ["--model_name_or_path", folder]
    for number, (flags, style, max_tokens, warnings) in enumerate(
        (
            ([], "instruct", 4096, 0),
            (model, "nano", 24, 0),
            ([*model, "--model_name", "nano-toy"], "nano", 24, 0),
            ([*model, "--model_name", "ConvSearch-R1"], "instruct", 24, 1),
            ([*model, "--prompt", "plain", "--max_tokens", 30], "plain", 30, 2),
        )
    ):
        out = tmp_path / f"{number}.jsonl"
        caplog.clear()
        infer_main(door(turns, out, *flags)[len(DOOR) :])
        settings = json.loads(passport_path(out).read_text())["settings"]
        assert (settings["style"], settings["sampling"]["max_tokens"]) == (style, max_tokens)
        assert len(caplog.records) == warnings, caplog.text


def test_the_names_of_the_original_select_styles():
    assert {name: style_of(name) for name in MODEL_NAMES} == MODEL_NAMES
    assert style_of("nano-toy") == "nano"
    with pytest.raises(ConfigError, match="ConvSearch-R1, Get_SFT"):
        style_of("convsearch")
