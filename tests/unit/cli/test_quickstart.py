"""The command line of a run: settings are shown or refused, progress goes to stderr, errors are
sentences with exit code 2."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_run import make_run_folder, make_summary
from rich.console import Console

from convsearch.cli.main import main
from convsearch.cli.progress import StageProgress
from convsearch.cli.quickstart import result_table


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def convsearch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs the command line in an empty folder."""

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["convsearch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    return run


def test_settings_are_shown_without_running(
    convsearch: Callable[..., Done], tmp_path: Path
) -> None:
    done = convsearch("quickstart", "--preset", "tiny", "--show-settings", "--set", "grpo.lr=0.5")
    assert done.code == 0
    assert "grpo.lr=0.5\n" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quickstart", "--set", "grpo.step=3"], "no setting 'grpo.step'; did you mean"),
        (["quickstart", "--policy", "nowhere"], "nowhere: no such folder"),
        (["report", "--run", "nowhere"], "neither a finished run (summary.json)"),
    ],
)
def test_errors_are_one_sentence_and_code_2(
    convsearch: Callable[..., Done], arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    done = convsearch(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert sentence in done.err
    assert list(tmp_path.iterdir()) == []


def test_report_is_rebuilt_from_files(convsearch: Callable[..., Done], tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run")
    assert convsearch("report", "--run", str(run)).out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size > 10_000


def test_log_has_a_line_for_each_stage_with_seconds_and_counts() -> None:
    out = io.StringIO()
    with StageProgress(Console(file=out, width=200)) as progress:
        progress.started("sft", 1, 2)
        progress.advanced("infer", 1, 2, "turns")  # too soon after the start to be worth a line
        progress.ended("sft", 12.34, {"steps": 2}, reused=False)
        progress.ended("grpo", 5.0, {}, reused=True)
    assert [" ".join(line.split()) for line in out.getvalue().splitlines()] == [
        "[1/2] sft ...",
        "sft 12.3 s steps 2",
        "grpo kept from before (5.0 s)",
    ]


def test_a_training_has_a_line_for_every_step() -> None:
    out = io.StringIO()
    with StageProgress(Console(file=out, width=200)) as progress:
        progress.started("grpo", 6, 15)
        for step in (3, 4, 5):
            progress.advanced("grpo", step, 80, f"reward 0.{step}")
    lines = out.getvalue().splitlines()[1:]
    assert lines[0] == "[6/15] grpo 3/80: reward 0.3, 0 s so far"
    assert lines[2] == "[6/15] grpo 5/80: reward 0.5, 0 s left, 0 s so far"


def test_another_long_stage_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("convsearch.cli.progress.LINE_EVERY_S", 0.0)
    out = io.StringIO()
    with StageProgress(Console(file=out, width=200)) as progress:
        progress.started("infer-base", 3, 15)
        progress.advanced("infer-base", 3, 80, "turns")
    assert "[3/15] infer-base 3/80: turns, 0 s so far" in out.getvalue()


def test_table_has_every_source() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(result_table(make_summary()))
    text = out.getvalue()
    for name in ("raw", "history", "base", "sft", "grpo"):
        assert name in text
    assert "0.350 - 0.450" in text
