"""One home for progress in two forms: a bar on a terminal, a line a step in a file."""

import io

import pytest
from rich.console import Console

from convsearch.cli.steps import Pace, duration, step_line, step_progress
from convsearch.train.step_text import step_text

GRPO = {
    "critic/score/mean": 0.4123,
    "rewrite/found": 0.611,
    "rewrite/malformed": 0.02,
    "rewrite/flat_groups": 0.4,
    "actor/kl_loss": 0.00123,
    "timing_s/step": 5.21,
    "perf/throughput": 9.0,
}


def test_what_is_said_of_a_step() -> None:
    text = "reward 0.412, found 61%, malformed 2%, equal groups 40%, KL 0.0012, 5.2 s"
    assert step_text(GRPO) == text
    without_reference = {k: v for k, v in GRPO.items() if k != "actor/kl_loss"}
    assert "KL" not in step_text(without_reference)
    assert step_text({"train/loss": 1.5, "train/lr": 1e-5}) == "loss 1.500, lr 1.0e-05"
    assert step_text({}) == ""


def test_time_left_counts_from_the_first_step_seen() -> None:
    now = iter([100.0, 110.0, 120.0, 130.0])
    pace = Pace(lambda: next(now))
    assert [pace.left(done, 44) for done in (40, 41, 42, 44)] == ["", "30 s left", "20 s left", ""]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (89.0, "89 s"), (420, "7 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line() -> None:
    assert step_line("sft", 2, 9, "loss 1.5", "7 min left") == "sft 2/9: loss 1.5, 7 min left"
    assert step_line("playing", 2, 9, "", "") == "playing 2/9"


def test_a_file_gets_a_line_for_each_step() -> None:
    out = io.StringIO()
    with step_progress(every_s=0.0, console=Console(file=out, width=60)) as advance:
        for step in (1, 2, 3):
            advance("grpo", step, 3, f"reward 0.{step} [x]")
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == [
        "grpo 1/3",
        "grpo 2/3",
        "grpo 3/3",
    ]
    assert "reward 0.1 [x]" in out.getvalue()


def test_short_steps_get_a_line_now_and_then() -> None:
    out = io.StringIO()
    with step_progress(every_s=60.0, console=Console(file=out, width=60)) as advance:
        for piece in ("playing", "teaching"):
            for step in range(1, 101):
                advance(piece, step, 100)
    heads = ["playing 1/100", "playing 100/100", "teaching 1/100", "teaching 100/100"]
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == heads


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    with step_progress(every_s=0.0, console=console) as advance:
        advance("grpo", 1, 3, "reward 0.100, found 3%")
    assert "grpo, reward 0.100 " in out.getvalue()
    assert "1/3" in out.getvalue()
