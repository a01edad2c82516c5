"""Help is whole in a pipe and at 80 columns, which is what a pipe has."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from convsearch.cli import grpo, sft
from convsearch.cli.main import app

MIN_CHARS = 14
"""Of the shortest help that tells something; "tokens", "as --k1" and "of sampling" do not."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


ALL = list(commands(typer.main.get_command(app)))
every_command = pytest.mark.parametrize(
    ("path", "command"), ALL, ids=[" ".join(path) or "convsearch" for path, _ in ALL]
)


def shown(*path: str) -> str:
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert done.exit_code == 0
    return done.output


def test_all_commands_are_looked_at() -> None:
    assert {"grpo", "agent infer", "hub push", "data prompts"} <= {" ".join(p) for p, _ in ALL}


@every_command
def test_no_name_of_an_option_or_a_command_is_cut(path: tuple[str, ...], command: Any) -> None:
    output = shown(*path)
    lines, words = output.splitlines(), set(output.replace(",", " ").split())
    for param in command.params:
        if param.param_type_name == "option":
            assert {*param.opts, *param.secondary_opts} <= words
    for name in getattr(command, "commands", {}):
        assert any(line.startswith(f"  {name}") for line in lines), name
    assert "…" not in output
    assert "..." not in output.partition("Commands:")[2]


@every_command
def test_help_says_enough_to_act_on(path: tuple[str, ...], command: Any) -> None:
    for param in command.params:
        said = (getattr(param, "help", None) or "").rstrip(".")
        assert len(said) >= MIN_CHARS, f"{' '.join(path)} {param.opts[0]}: {said!r}"


@pytest.mark.parametrize(("name", "module"), [("grpo", grpo), ("sft", sft)])
def test_the_options_of_a_training_stand_under_headings(name: str, module: Any) -> None:
    command = dict(ALL)[(name,)]
    listed = {one for names in module.HEADINGS.values() for one in names}
    assert listed <= {param.name for param in command.params}
    assert all(f"\n{heading}:\n" in shown(name) for heading in module.HEADINGS)
