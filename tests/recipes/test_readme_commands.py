"""Every command in the documents is accepted by the program that it calls. Nothing is run."""

import importlib
import itertools
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import typer

from convsearch.cli.main import app

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.M | re.S)
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
CONVSEARCH_SCRIPTS = {
    "scripts/download_models.sh": ["hub", "download", "released"],
    "scripts/merge_checkpoint.sh": ["merge"],
    "scripts/push_to_hub.sh": ["hub", "push"],
}
"""Scripts that hand their words to one command."""
INDEX_SCRIPTS = {
    "index": ["index", "--corpus", "c", "--out", "i"],
    "serve": ["serve", "--index", "i"],
}
SHELL_WORDS = ("source", "export", "cd")


def documents() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"]
    found += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "verl").rglob("*.md"))
    return [path for path in found if path.is_file()]


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command in the fenced shell blocks; continued lines joined, comments gone."""
    for block in FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and ASSIGNMENT.fullmatch(words[0]):
                words = words[1:]
            if words and words[-1] == "&":
                words = words[:-1]
            if words:
                yield words


def all_commands() -> list[tuple[str, list[str]]]:
    return [
        (f"{path.relative_to(ROOT)}: {' '.join(words)}", words)
        for path in documents()
        for words in commands(path.read_text(encoding="utf-8"))
    ]


def check(words: list[str]) -> None:
    """Raises, or exits with another code than 0, where the program would not take the command."""
    program, *arguments = words
    if program in ("python", "python3"):
        check_python(arguments)
    elif program == "bash":
        check_script(arguments)
    elif program.removeprefix(".venv/bin/") == "convsearch":
        check_convsearch(arguments)
    else:
        assert program in SHELL_WORDS, f"teach this test about {program!r}"


def check_convsearch(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    name = "convsearch"
    while True:
        context = command.make_context(name, list(arguments))
        if not hasattr(command, "resolve_command"):
            break
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not rest:
            break
        name, command, arguments = command.resolve_command(context, rest)  # pyright: ignore
    check_settings(name, arguments)


def check_settings(name: str | None, arguments: list[str]) -> None:
    """`convsearch quickstart` also refuses names of settings, which only its preset knows."""
    if name != "quickstart":
        return
    from convsearch.pipeline.presets import NANO_POLICY, POOLED, preset

    values: dict[str, list[str]] = {}
    for flag, value in itertools.pairwise(arguments):
        if flag.startswith("--"):
            values.setdefault(flag, []).append(value)
    source, policy = (Path(values[f][0]) if f in values else None for f in ("--source", "--policy"))
    chosen = values.get("--preset", ["mini"])[0]
    if "--dataset" in values and chosen in POOLED:  # the folder need not be there
        source, policy = Path(values["--dataset"][0]), policy or NANO_POLICY
    preset(chosen, source=source, policy=policy, overrides=values.get("--set", []))


def check_script(arguments: list[str]) -> None:
    script, *rest = arguments
    path = ROOT / script
    assert path.is_file(), f"{script} does not exist"
    subprocess.run(["bash", "-n", str(path)], check=True)
    if script == "scripts/test.sh":
        parts = re.search(r"^PARTS=\((.*)\)$", path.read_text(), re.M)
        assert parts is not None
        assert set(rest) <= set(parts.group(1).split())
    elif script == "scripts/quickstart.sh":
        check_convsearch(["quickstart", *rest])
    elif script in ("scripts/install.sh", "scripts/quickstart_agent.sh"):
        assert rest == []
    elif script in CONVSEARCH_SCRIPTS:
        check_convsearch([*CONVSEARCH_SCRIPTS[script], *rest])
    elif re.fullmatch(
        r"scripts/(build_index|serve)_(topiocqa|qrecc|wiki18)_(bm25|ance|e5)\.sh", script
    ):
        check_convsearch([*INDEX_SCRIPTS["serve" if "serve" in script else "index"], *rest])
    else:
        assert script.startswith("verl/examples/"), f"teach this test about {script}"


def check_python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "verl.trainer.main_ppo"]:
        check_overrides("ppo_trainer", arguments[2:])
        return
    door, *rest = arguments
    assert (ROOT / door).is_file(), f"{door} does not exist"
    assert door in PARSERS, f"teach this test about {door}"
    PARSERS[door](rest)


def check_overrides(config_name: str, overrides: list[str]) -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        compose(config_name, overrides=overrides)


def parse_server(arguments: list[str]) -> None:
    from retriever_server.flags import parser

    parser().parse_args(arguments)


def parse_door(module: str, name: str) -> Callable[[list[str]], None]:
    """Runs a door up to the point where its arguments are parsed."""

    def parse(arguments: list[str]) -> None:
        doors = importlib.import_module(f"convsearch.cli.{module}")
        with mock.patch.object(doors, f"_{name}", return_value=None):
            getattr(doors, f"{name}_main")(arguments)

    return parse


def parse_preprocessing(name: str) -> Callable[[list[str]], object]:
    """The same for the doors of `verl/examples/data_preprocess`."""

    def parse(arguments: list[str]) -> None:
        from convsearch.cli import preprocess_doors as doors

        with mock.patch.multiple(doors, _write_grpo=mock.DEFAULT, _write_sft=mock.DEFAULT):
            getattr(doors, f"{name}_main")(arguments)

    return parse


PARSERS: dict[str, Callable[[list[str]], object]] = {
    **{
        f"verl/examples/data_preprocess/{name}.py": parse_preprocessing(name)
        for name in ("topiocqa", "topiocqa_sft", "qrecc", "qrecc_sft")
    },
    "src/infer/infer.py": parse_door("infer_door", "infer"),
    "src/eval/get_metrics_using_ance.py": parse_door("eval_doors", "ance"),
    "src/eval/get_metrics_using_bm25.py": parse_door("eval_doors", "bm25"),
    "retriever_server/server.py": parse_server,
}


@pytest.mark.parametrize("words", [pytest.param(w, id=name) for name, w in all_commands()])
def test_command_is_accepted(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "convsearch quikstart",
        "convsearch quickstart --no-such-flag",
        "convsearch quickstart --preset huge",
        "convsearch quickstart --set grpo.total_step=3",
        "convsearch index --corpus",
        "bash scripts/no_such.sh",
        "bash scripts/test.sh everything",
        "python3 retriever_server/server.py --colour red",
        "python3 src/infer/infer.py --input_path x --output_path y",
        "python3 src/eval/get_metrics_using_bm25.py --index_dir x",
        "python3 -m verl.trainer.main_ppo retriever.tpok=1",
        "rm -rf somewhere",
    ],
)
def test_wrong_commands_are_seen(line: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        check(shlex.split(line))


def test_links_between_documents_lead_somewhere() -> None:
    for path in documents():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"
