"""`convsearch agent curves` and `paired`: a training drawn, and two runs question by question."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.agent.records import read_episodes
from convsearch.cli import options as o
from convsearch.cli.agent_options import PlotForm, Questions, SetName, Split, say_plots
from convsearch.data.questions import load_questions
from convsearch.episodes.evaluation import score_run
from convsearch.episodes.paired import PairedRow, paired_rows
from convsearch.errors import ConfigError
from convsearch.named_paths import named_path
from convsearch.report.training_curves import read_run, write_curves


def curves(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FOLDER...", help="Folders that the recipes wrote (OUT)."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the charts.")],
    plots: Annotated[PlotForm, typer.Option("--plots", help="File format of the charts.")] = "svg",
) -> None:
    """Draw reward, right answers, searches and lengths of trainings over their steps."""
    named = dict(_named(run) for run in runs)
    if len(named) < len(runs):
        raise ConfigError("two runs have one name; name them apart, as n3=FOLDER n1=FOLDER")
    found = {name: read_run(folder) for name, folder in named.items()}
    for name, steps in found.items():
        o.say(f"{name}: {len(steps)} steps")
    say_plots(plots, lambda form: write_curves(out, found, form=form))


def paired(
    first: Annotated[Path, typer.Argument(help='Episodes of "convsearch agent infer".')],
    second: Annotated[Path, typer.Argument(help="Episodes over the same questions.")],
    dataset: Questions,
    split: Split = "dev",
    set_name: SetName = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many questions, as at inference.", min=1)
    ] = None,
    max_documents: Annotated[
        int | None, typer.Option(help="Count answers only where no more was read.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals and the test.")] = 0,
) -> None:
    """Compare two runs question by question: differences, their intervals, a randomisation test."""
    data = load_questions(dataset)
    questions = data.questions(split, set_name)[:limit]
    golds = {question.qid: data.golds(question.qid) for question in questions}
    scored = [
        score_run(str(path), read_episodes(path), questions, golds) for path in (first, second)
    ]
    rows = paired_rows(*scored, seed=seed, max_documents=max_documents)
    within = "" if max_documents is None else f", within {max_documents} documents"
    o.say(f"{first.stem} less {second.stem}, {len(questions)} questions{within}")
    o.say(paired_table(rows))


def paired_table(rows: list[PairedRow]) -> str:
    """The rows as text."""
    lines = [f"{'':<10} {'first':>7} {'second':>7} {'difference and 95 % interval':>32} {'p':>7}"]
    for row in rows:
        low, high = row.interval
        gap = f"{row.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(
            f"{row.measure:<10} {row.first:7.3f} {row.second:7.3f} {gap:>32} {row.p_value:7.4f}"
        )
    return "\n".join(lines)


def _named(text: str) -> tuple[str, Path]:
    name, folder = named_path(text)
    return (Path(folder).name if name is None else name), Path(folder)
