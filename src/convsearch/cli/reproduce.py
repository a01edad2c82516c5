"""`convsearch reproduce`: a table of the paper as commands, and what of it this machine can run."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.cli import options as o
from convsearch.errors import ConfigError, StageError
from convsearch.eval.published import SIZES, published_table
from convsearch.passport import git_revision, versions
from convsearch.pipeline.reproduce.expected import Expected, expected_numbers
from convsearch.pipeline.reproduce.machine import Machine, lacks, this_machine
from convsearch.pipeline.reproduce.names import (
    CORPORA,
    ENGINES,
    GPU_COUNTS,
    GPUS,
    MODELS,
    TRAIN_ENGINE,
    URL,
)
from convsearch.pipeline.reproduce.run import run_plan
from convsearch.pipeline.reproduce.steps import Site, Step
from convsearch.pipeline.reproduce.tables import Choice, Plan, TableName, plan


def command(
    table: Annotated[TableName, typer.Argument(help="Table of arXiv 2505.15776.")],
    dataset: Annotated[
        list[str] | None, typer.Option(help=f"{' or '.join(CORPORA)}; both if not given.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help=f"{' or '.join(ENGINES)}; both if not given.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(MODELS)}; all of the table if not given.")
    ] = None,
    train_engine: Annotated[
        Literal["bm25", "ance"],
        typer.Option(help="Whose ranks train the policy and choose what it distils."),
    ] = TRAIN_ENGINE,
    gpus: Annotated[int, typer.Option(help="Of the node that trains: 1, 2, 4 or 8.")] = GPUS,
    retriever_url: Annotated[
        str,
        typer.Option(envvar="RETRIEVER_URL", help="Address of the server that a training asks."),
    ] = URL,
    seeds: Annotated[int, typer.Option(help="Runs of inference for each model.", min=1)] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help="Steps whose title holds this text; may be repeated.")
    ] = None,
    root: Annotated[
        Path, typer.Option(help="Checkout with data/, indexes/ and runs/; paths are inside it.")
    ] = Path(),
    run: Annotated[
        bool, typer.Option("--run", help="Run what this machine can; goes on where it stopped.")
    ] = False,
) -> None:
    """Print the commands, hardware and expected numbers of a table, or run what can be run."""
    if engine and table == SIZES:
        raise ConfigError(
            f"{table} has no search results: leave --engine out, and name whose ranks filter with "
            "--train-engine"
        )
    if gpus not in GPU_COUNTS:
        raise ConfigError(
            f"--gpus {gpus}: the recipes divide their batches among "
            f"{', '.join(map(str, GPU_COUNTS))} GPUs"
        )
    choice = Choice(
        table=table,
        datasets=_known(dataset, tuple(CORPORA), "--dataset"),
        engines=_known(engine, ENGINES, "--engine"),
        models=_known(model, tuple(MODELS), "--model"),
        seeds=seeds,
        train_engine=train_engine,
        site=Site(gpus=gpus, url=retriever_url),
    )
    made = plan(choice)
    steps = [s for s in made.steps if not only or any(text in s.title for text in only)]
    if not steps:
        raise ConfigError(f"no step of {table} has {' or '.join(only or [])} in its title")
    machine = this_machine(root, retriever_url)
    if run:
        _run(made, steps, machine, root, seeds)
    else:
        _print_plan(made, steps, machine, root)
        _print_expected(expected_numbers(made, seeds=seeds, root=root))


def _known(wanted: list[str] | None, known: tuple[str, ...], flag: str) -> tuple[str, ...]:
    unknown = next((name for name in wanted or () if name not in known), None)
    if unknown is not None:
        raise ConfigError(f"{flag} {unknown}: choose {' or '.join(known)}")
    return tuple(name for name in known if name in wanted) if wanted else known


def _print_plan(made: Plan, steps: list[Step], machine: Machine, root: Path) -> None:
    table = published_table(made.table)
    o.say(f"# {made.table}: {table.title} ({table.source})")
    o.say("# Hardware of the recipes: one node with 8 GPUs of 80 GB; inference from 1 GPU on.")
    o.say("# Sizes of disk and memory are by proportion, hours of training not yet measured.")
    for line in machine.lines():
        o.say(f"# here: {line}")
    o.say("# run all of it from a checkout of the project")
    phase = ""
    for step in steps:
        if step.phase != phase:
            phase = step.phase
            o.say(f"\n# --- {phase}")
        o.say(f"\n# {step.title}")
        o.say(f"# {_state(step, machine, root)}")
        o.say(step.line)


def _state(step: Step, machine: Machine, root: Path) -> str:
    if step.makes is not None and (root / step.makes).is_file():
        return f"done: {step.makes} is there"
    reasons = lacks(step, machine, root)
    return f"not here and now: {'; '.join(reasons)}" if reasons else "can run here"


def _print_expected(cells: list[Expected]) -> None:
    o.say("\n# Expected, metrics in per cent. The tolerances are this project's judgement: what")
    o.say("# decoding at temperature 0.7 can move on the paper's n questions, 1.96 sqrt(m(1-m)/n),")
    o.say("# and twice 0.8 points for the seed of a training; 0.5 points for queries that")
    o.say("# are fixed. Our prompts are not the paper's, so rows that are only prompted have none.")
    for cell in cells:
        bound = "no tolerance" if cell.tolerance is None else f"± {cell.tolerance:.1f}"
        measured = f", measured {cell.measured_text}" if cell.measured_text else ""
        o.say(
            f"# {cell.column:<14} {cell.method:<38} {cell.metric:<10} {cell.published_text:>5} "
            f"{bound}{measured}: {cell.verdict}"
        )


def _run(made: Plan, steps: list[Step], machine: Machine, root: Path, seeds: int) -> None:
    def on_step(step: Step, outcome: str, reason: str) -> None:
        o.say(f"[{'running' if outcome == 'done' else outcome}] {step.title}")
        o.say(f"    {step.line if outcome == 'done' else reason}")

    ran = run_plan(made, steps, machine, root, on_step)
    counts = Counter(one.outcome for one in ran)
    cells = [c for c in expected_numbers(made, seeds=seeds, root=root) if c.measured is not None]
    outcomes = ("done", "kept", "skipped", "failed")
    o.say("\n" + ", ".join(f"{name} {counts[name]}" for name in outcomes))
    if cells:
        _print_expected(cells)
        o.say("\nEntry for a log of reproductions:")
        o.say(_entry(made, cells, machine))
    failed = [one for one in ran if one.outcome == "failed"]
    if failed:
        raise StageError(
            f"{len(failed)} of {len(ran)} steps failed, the first: {failed[0].step.line} "
            f"({failed[0].reason})"
        )


def _entry(made: Plan, cells: list[Expected], machine: Machine) -> str:
    found = versions()
    lines = [
        f"* {made.table}, commit {git_revision() or 'not a checkout'}, convsearch "
        f"{found.get('convsearch', 'not installed')}, Python {found['python']}, "
        f"{machine.lines()[0]}"
    ]
    lines += [
        f"    * {c.column} {c.method} {c.metric}: {c.measured_text} (published "
        f"{c.published_text}, {c.verdict})"
        for c in cells
    ]
    return "\n".join(lines)
