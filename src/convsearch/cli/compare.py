"""`convsearch compare`: evaluations side by side, with significance, gains and losses."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.cli import options as o
from convsearch.data.dataset import load_dataset
from convsearch.errors import ConfigError
from convsearch.eval.published import TABLES, published_rows, published_table
from convsearch.eval.significance import PERMUTATIONS
from convsearch.files import atomic_write, write_jsonl
from convsearch.made import refuse_passport_name
from convsearch.named_paths import named_path, path_list
from convsearch.pipeline.comparison import (
    DEFAULT_METRICS,
    Method,
    check_comparable,
    compare,
    paired_qids,
)
from convsearch.pipeline.evaluation_folder import read_evaluation
from convsearch.report.comparison_charts import write_charts
from convsearch.report.comparison_page import Published, render_comparison

_PAPER_QUERIES = {"topiocqa": (2514,), "qrecc": (8124, 8209)}
"""Test turns of the paper (tables 7 and 10; it gives two numbers for QReCC)."""


def command(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FOLDER...",
            help='Folders of "convsearch eval"; several seeds of one method: NAME=FOLDER1,FOLDER2.',
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeat for several; by default {', '.join(DEFAULT_METRICS)}."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with this method alone, instead of all pairs.")
    ] = None,
    unit: Annotated[
        Literal["conversation", "turn"],
        typer.Option(help="What may swap its methods by chance, and what intervals draw."),
    ] = "conversation",
    permutations: Annotated[
        int, typer.Option(help="Sign flips of the test; all are tried where there are fewer.")
    ] = PERMUTATIONS,
    seed: Annotated[int, typer.Option(help="Of the test and the intervals.")] = 0,
    examples: Annotated[
        int, typer.Option(help="Largest gains, and losses, to show for each pair.", min=0)
    ] = 5,
    dataset: Annotated[
        Path | None, typer.Option(help="Where the questions stand, if they were moved since.")
    ] = None,
    style: Annotated[
        Literal["text", "markdown", "latex", "csv"],
        typer.Option("--format", help="How the tables are printed."),
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="File for the tables; else stdout.")] = None,
    per_query: Annotated[
        Path | None, typer.Option(help="File (.jsonl) for every question with all its outcomes.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for charts.")] = None,
    plot_format: Annotated[
        Literal["svg", "png"], typer.Option(help="File format of the charts.")
    ] = "svg",
    published: Annotated[
        str | None,
        typer.Option(
            metavar="[TABLE/]DATASET/ENGINE",
            help=f"Numbers of others beside ours, as topiocqa/bm25; tables: {', '.join(TABLES)}.",
        ),
    ] = None,
    published_anyway: Annotated[
        bool, typer.Option(help="Show them although the folders are of other data.")
    ] = False,
    allow_different_engines: Annotated[
        bool, typer.Option(help="Compare what was searched with different engines.")
    ] = False,
) -> None:
    """Compare evaluations of one data set: means, paired tests, gains and losses."""
    refuse_passport_name(out)
    refuse_passport_name(per_query)
    read = _read_methods(methods)
    if len(read) < 2 and published is None:
        raise ConfigError("name two evaluations or more, or one and --published DATASET/ENGINE")
    check_comparable(read, allow_different_engines=allow_different_engines)
    beside = _published(published, read[0], anyway=published_anyway) if published else None
    questions = _questions(read, dataset)
    result = compare(
        read,
        metrics=metric or DEFAULT_METRICS,
        against=against,
        unit=unit,
        permutations=permutations,
        seed=seed,
        num_changes=examples,
        questions=questions,
    )
    if plots is not None:
        drawn = write_charts(plots, read, paired_qids(read), against=against, form=plot_format)
        print(f"charts: {', '.join(map(str, drawn))}", file=sys.stderr)
    if per_query is not None:
        write_jsonl(per_query, _per_query(read, questions))
    _put(render_comparison(result, style, beside), out)


def _put(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    with atomic_write(out) as file:
        file.write(text)
    o.say(f"written to {out}")


def _read_methods(words: Sequence[str]) -> list[Method]:
    methods = []
    for word in words:
        given, paths = named_path(word)
        name = Path(paths).name if given is None else given
        folders = [Path(path) for path in path_list(paths)]
        if not name or not all(path_list(paths)):
            raise ConfigError(f"{word}: expected FOLDER, NAME=FOLDER or NAME=FOLDER1,FOLDER2")
        if len(set(folders)) < len(folders):
            raise ConfigError(f"{word}: names one folder twice; seeds must be different runs")
        if given is None and len(folders) > 1:
            raise ConfigError(f"{word}: several seeds need a name: NAME={word}")
        methods.append(Method(name=name, seeds=tuple(map(read_evaluation, folders))))
    return methods


def _questions(methods: Sequence[Method], dataset: Path | None) -> dict[str, str]:
    if dataset is not None:
        return {turn.qid: turn.question for turn in load_dataset(dataset).all_turns}
    found = (folder.questions() for method in methods for folder in method.seeds)
    return next((questions for questions in found if questions), {})


def _published(wanted: str, method: Method, *, anyway: bool) -> Published:
    parts = wanted.split("/")
    if len(parts) not in (2, 3):
        raise ConfigError(f"--published {wanted}: expected DATASET/ENGINE or TABLE/DATASET/ENGINE")
    table, dataset, engine = parts if len(parts) == 3 else ("table1", *parts)
    if table not in TABLES:
        raise ConfigError(f"--published {wanted}: the tables are {', '.join(TABLES)}")
    rows = published_rows(table, dataset, engine)
    folder = method.seeds[0]
    notes = list(published_table(table).notes)
    if folder.dataset != dataset:
        mismatch = (
            f"the published numbers are of {dataset}, these folders are of "
            f"{folder.dataset or 'a data set that was not recorded'}"
        )
        if not anyway:
            raise ConfigError(f"{mismatch}; nothing is comparable (--published-anyway shows them)")
        print(f"warning: {mismatch}", file=sys.stderr)
        notes.append(f"WARNING: {mismatch}; they are not comparable.")
    elif len(folder.results) not in _PAPER_QUERIES.get(dataset, (len(folder.results),)):
        known = " or ".join(map(str, _PAPER_QUERIES[dataset]))
        notes.append(f"The paper tests on {known} turns, these folders on {len(folder.results)}.")
    if folder.convention == "all_queries":
        notes.append(
            "The paper's script averages over answered questions only; ours are means over all "
            "(--paper_compat of convsearch eval gives the former)."
        )
    return Published(table=table, rows=tuple(rows), notes=tuple(notes))


def _per_query(methods: Sequence[Method], questions: dict[str, str]) -> list[dict[str, object]]:
    return [
        {
            "qid": qid,
            "conv_id": methods[0].seeds[0].results[qid].conv_id,
            "turn": methods[0].seeds[0].results[qid].turn,
            "question": questions.get(qid),
            "methods": {
                method.name: [
                    {"query": r.query, "status": r.status, "rank": r.rank, "metrics": r.metrics}
                    for r in (seed.results[qid] for seed in method.seeds)
                ]
                for method in methods
            },
        }
        for qid in paired_qids(methods)
    ]
