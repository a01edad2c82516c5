"""How every command ends: sentences for people, and nothing else is hidden."""

import errno

import pytest

from convsearch.cli.doors import run_door
from convsearch.errors import ConfigError


def ends(error: Exception) -> int:
    def door() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_door(door)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("x: choose y"), "error: x: choose y\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error: a file: cannot be read or written (No",
        ),
        (
            OSError("50985 requested and 42976 written"),
            "error: a file: cannot be read or written (No space left on device: 50985 requested",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "error: a file: cannot be read or written (No space left on device); make room",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a"),
            "error: a: cannot be read or written",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"), "error: /proc/x"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", ".a.tmp", None, "a"), "error: a: can"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence_and_exit_code_2(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error) == 2
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    "error", [ConnectionResetError(errno.ECONNRESET, "reset"), KeyError("x"), OSError("odd")]
)
def test_our_own_mistakes_keep_their_traceback(error: Exception) -> None:
    def door() -> None:
        raise error

    with pytest.raises(type(error)):
        run_door(door)
