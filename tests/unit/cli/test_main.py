"""The command line as a whole."""

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from convsearch import __version__
from convsearch.cli.main import FLOW, app


def test_help_lists_every_command_in_the_order_of_the_data() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    listed = [line.split()[0] for line in shown.splitlines() if re.match(r"  [a-z]", line)]
    assert [name for name in listed if name in FLOW] == list(FLOW)


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"convsearch {__version__}\n")


@pytest.mark.parametrize("flag", ["--install-completion", "--show-completion"])
def test_the_shell_can_complete(flag: str) -> None:
    assert flag in CliRunner().invoke(app, ["--help"]).output


def test_a_shell_that_asks_is_answered() -> None:
    asked = {
        "_CONVSEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "convsearch gr",
        "COMP_CWORD": "1",
    }
    program = "from convsearch.cli.main import app; app(prog_name='convsearch')"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "grpo" in done.stdout.split()
