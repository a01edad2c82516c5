"""Every command that `convsearch reproduce` prints is accepted by the program it calls."""

import shlex
from pathlib import Path

import pytest
import typer

from convsearch.cli.main import app
from convsearch.pipeline.reproduce import names
from convsearch.pipeline.reproduce.steps import Site, Step
from convsearch.pipeline.reproduce.tables import TABLES, Choice, plan

ROOT = Path(__file__).parents[2]


def all_steps() -> dict[str, Step]:
    return {
        step.line: step
        for table in TABLES
        for choice in (
            Choice(table=table),
            Choice(table=table, train_engine="bm25", seeds=1, site=Site(gpus=2)),
        )
        for step in plan(choice).steps
    }


def of_every_shape() -> list[Step]:
    """One step for each script, and for each command with its options; their values are free."""
    shapes: dict[tuple[str, ...], Step] = {}
    for step in all_steps().values():
        if step.words[0] == "bash":
            shape = step.words[1:2]
        else:
            fixed = (w for w in step.words if w.startswith("--"))
            shape = (*step.words[1 : 3 if step.words[1] == "data" else 2], *fixed)
        shapes.setdefault(shape, step)
    return list(shapes.values())


def parses(words: tuple[str, ...]) -> None:
    command = typer.main.get_command(app)
    arguments, name = list(words[1:]), "convsearch"
    while True:
        context = command.make_context(name, list(arguments))
        if not hasattr(command, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, arguments = command.resolve_command(context, rest)  # pyright: ignore


@pytest.mark.parametrize("step", [pytest.param(s, id=s.title) for s in of_every_shape()])
def test_a_printed_command_is_accepted(step: Step) -> None:
    words = shlex.split(step.line)
    while "=" in words[0]:
        words.pop(0)
    assert tuple(words) == step.words
    try:
        if words[0] == "bash":
            assert (ROOT / words[1]).is_file(), f"{words[1]} does not exist"
        else:
            assert words[0] == "convsearch"
            parses(step.words)
    except (Exception, SystemExit, AssertionError):
        raise


def test_wrong_commands_are_seen() -> None:
    with pytest.raises((Exception, SystemExit)):
        parses(("convsearch", "eval", "--no-such-flag"))


def test_one_table_in_code_names_every_script() -> None:
    named = {word for step in all_steps().values() for word in step.words if word.endswith(".sh")}
    assert named == set(names.scripts())
