"""Control characters are shown and not obeyed; everything else stays as it is."""

import pytest

from convsearch.cli import options
from convsearch.cli.doors import run_door
from convsearch.errors import DataError
from convsearch.visible import visible, visible_line


@pytest.mark.parametrize(
    "text", ["plain", "tab\tand\nline", "Größe? 日本語", "<b>&amp;", "a\u200db", "עברית"]
)
def test_text_of_people_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    "sign", ["\x1b", "\x07", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028"]
)
def test_controls_become_a_sign(sign: str) -> None:
    assert visible(f"a{sign}b") == "a\ufffdb"
    assert sign not in visible_line(f"a{sign}b\nc")


def test_a_line_is_one_line() -> None:
    assert visible_line(" a\r\n b\tc ") == "a b c"


def test_results_and_errors_of_commands_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    options.say("written to \x1b]0;t\x07")

    def door() -> None:
        raise DataError("turns.jsonl:1: \x1b[2J")

    with pytest.raises(SystemExit):
        run_door(door)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "error: turns.jsonl:1: \ufffd[2J" in shown.err
