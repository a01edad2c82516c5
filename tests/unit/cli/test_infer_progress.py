"""Tokens a second and time left, by a clock of the test."""

import pytest

from convsearch.cli.infer_progress import LINE_EVERY_S, Meter, infer_progress


def test_speed_counts_what_this_run_made():
    now = 100.0
    meter = Meter(clock=lambda: now)
    assert meter.speed() == ""
    meter.advance(500, 2500)  # of an earlier run
    assert meter.speed() == ""
    now = 110.0
    meter.add_tokens(34_120)
    meter.advance(700, 2500)
    assert meter.speed() == "3,412 tokens/s, 0:01:30 left"
    now = 200.0
    meter.advance(2500, 2500)
    assert meter.speed() == "341 tokens/s, 0:00:00 left"


def test_lines_come_seldom_and_at_the_end():
    now = 0.0
    meter = Meter(clock=lambda: now)
    meter.advance(0, 9)
    assert meter.is_due()
    assert not meter.is_due()
    now = LINE_EVERY_S
    assert meter.is_due()
    meter.advance(9, 9)
    assert meter.is_due()


def test_without_a_terminal_it_writes_lines(capsys: pytest.CaptureFixture[str]):
    with infer_progress("rewriting") as meter:
        for done in range(0, 11):
            meter.advance(done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rewriting 0/10"
    assert lines[-1].startswith("rewriting 10/10, 0 tokens/s, 0:00:00 left")
    assert len(lines) == 2
