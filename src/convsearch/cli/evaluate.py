"""`convsearch eval`: rewrites or a baseline, and a search engine -> metrics and a TREC run."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.cli import options as o
from convsearch.data.dataset import load_dataset
from convsearch.errors import ConfigError
from convsearch.eval import METRICS
from convsearch.files import read_rewrites
from convsearch.pipeline.evaluation import (
    Evaluation,
    baseline_queries,
    evaluate_queries,
    evaluate_rewrites,
    write_evaluation,
)
from convsearch.pipeline.search import open_retriever


def command(
    dataset: o.DatasetOption,
    out: Annotated[Path, typer.Option(help="Folder for run.trec, metrics.json, per_query.jsonl.")],
    split: Annotated[str, typer.Option(help="Which turns.")] = "test",
    rewrites: Annotated[
        Path | None, typer.Option(help='File made by "convsearch infer" from the same split.')
    ] = None,
    baseline: Annotated[
        Literal["raw", "history"] | None,
        typer.Option(help="The question as asked, or with the whole conversation before it."),
    ] = None,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    topk: Annotated[int, typer.Option(help="Depth of the ranking, 100 or more.")] = 100,
    paper_compat: Annotated[
        bool,
        typer.Option(
            "--paper-compat",
            "--paper_compat",
            help="Average over answered queries only, as the original's script does.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap interval.")] = 0,
) -> None:
    """Measure how well queries find the right passages; every turn of the split counts."""
    if (rewrites is None) == (baseline is None):
        raise ConfigError("name what to evaluate: --rewrites FILE, or --baseline raw|history")
    started = time.monotonic()
    data = load_dataset(dataset)
    turns = data.turns(split)
    made = read_rewrites(rewrites) if rewrites else []
    with (
        open_retriever(index=index, url=retriever_url, encoder=encoder) as retriever,
        o.progress_bar("searching") as advance,
    ):
        if baseline:
            evaluation = evaluate_queries(
                turns,
                baseline_queries(turns, baseline),
                retriever,
                data.qrels,
                topk,
                paper_compat=paper_compat,
                seed=seed,
                on_progress=advance,
            )
        else:
            evaluation = evaluate_rewrites(
                turns,
                made,
                retriever,
                data.qrels,
                topk,
                paper_compat=paper_compat,
                seed=seed,
                on_progress=advance,
            )
    searched_at = str(index) if index else retriever_url
    write_evaluation(
        out,
        evaluation,
        tag=baseline or "rewrites",
        settings={"dataset": data.name, "split": split, "retriever": searched_at},
        inputs=[data.turns_path, data.qrels_path, *([rewrites] if rewrites else [])],
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
    )
    show(evaluation, out)


def show(evaluation: Evaluation, out: Path) -> None:
    """The result in a few lines on stdout."""
    counts = evaluation.counts
    o.say(", ".join(f"{name} {count}" for name, count in counts.items()))
    o.say(f"{evaluation.num_averaged} averaged: {evaluation.note}")
    for name in METRICS:
        label = f"mrr@{evaluation.topk}" if name == "mrr" else name
        interval = evaluation.mrr_interval if name == "mrr" else None
        tail = f"  [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        o.say(f"{label:<12} {evaluation.metrics[name]:.4f}{tail}")
    o.say(f"written to {out}")
