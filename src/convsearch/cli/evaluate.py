"""`convsearch eval`: queries or a ranking of any program -> metrics and a TREC run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import eval_table
from convsearch.cli import options as o
from convsearch.data.dataset import load_dataset
from convsearch.errors import ConfigError
from convsearch.eval import METRICS, RELEVANCE_LEVEL, metric_label
from convsearch.files import Qrels, read_qrels, read_run
from convsearch.pipeline.baselines import baseline_queries, is_concatenation
from convsearch.pipeline.evaluation import Evaluation, evaluate_searched
from convsearch.pipeline.evaluation_files import (
    RUN_NAME,
    check_out,
    unknown_golds_line,
    write_evaluation,
)
from convsearch.pipeline.evaluation_output import claim, evaluation_output
from convsearch.pipeline.measured_rewrites import rewrites_to_measure, warn_of_another_engine
from convsearch.pipeline.methods import MethodOptions
from convsearch.pipeline.run_files import evaluate_run
from convsearch.pipeline.search import SearchOptions, open_retriever, with_query_tokens
from convsearch.pipeline.searched import (
    QueryLimits,
    cut_queries,
    searched_queries,
    searched_rewrites,
)
from convsearch.types import Turn

DEFAULT_TOPK = 100


def command(
    out: Annotated[Path, typer.Option(help="Folder for run.trec, metrics.json, per_query.jsonl.")],
    dataset: Annotated[
        Path | None, typer.Option(help="Folder with turns.jsonl, corpus.jsonl, qrels.trec.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "test",
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="raw, history, or history:3 (last 3 exchanges). Repeat for a table."),
    ] = None,
    prompted: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: rewrites of a model that was not trained for this."),
    ] = None,
    rewrites: Annotated[
        list[str] | None,
        typer.Option(
            help='FILE made by "convsearch infer" from the same split; NAME=FILE in a table.'
        ),
    ] = None,
    union: Annotated[
        list[str] | None,
        typer.Option(help="A+B: two methods of the table, joined by text and by their ranks."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A TREC run of any program; nothing is searched.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements for --run, where there is no data set.")
    ] = None,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    fuse_with: o.FuseOption = None,
    k1: o.K1Option = None,
    b: o.BOption = None,
    topk: Annotated[
        int | None,
        typer.Option(help="Depth of the ranking: 100 or more, 100 by default; of --run all."),
    ] = None,
    max_query_words: Annotated[
        int | None, typer.Option(help="Search the first so many words of each query.")
    ] = None,
    max_query_tokens: o.QueryTokensOption = None,
    max_concat_tokens: o.ConcatTokensOption = QueryLimits.concat_tokens,
    paper_compat: Annotated[
        bool,
        typer.Option(
            "--paper-compat",
            "--paper_compat",
            help="Average over answered queries only, as the original's script does.",
        ),
    ] = False,
    relevance_level: Annotated[
        int,
        typer.Option(
            help="Lowest grade that counts as relevant for MRR and recall (trec_eval -l); NDCG "
            "takes all grades.",
            min=1,
        ),
    ] = RELEVANCE_LEVEL,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
    fresh: o.FreshOption = False,
) -> None:
    """Measure how well queries find the right passages; every turn of the split counts."""
    methods = MethodOptions(
        baselines=baseline or (),
        prompted=prompted or (),
        rewrites=rewrites or (),
        unions=union or (),
    )
    search = SearchOptions(
        index=index, url=retriever_url, encoder=encoder, fuse_with=fuse_with, k1=k1, b=b
    )
    limits = QueryLimits(
        words=max_query_words, tokens=max_query_tokens, concat_tokens=max_concat_tokens
    )
    check_out(out)
    if run is not None:
        if methods.num_methods or search != SearchOptions() or limits != QueryLimits():
            raise ConfigError(
                "--run is searched already: leave out queries, indexes and limits of queries"
            )
        if run.resolve() == (out / RUN_NAME).resolve():
            raise ConfigError(f"{run}: would be written over; name another folder with --out")
        judged = _judged(qrels, dataset, split)
        shaping = {
            **judged.settings,
            "topk": topk,
            "paper_compat": paper_compat,
            "relevance_level": relevance_level,
            "seed": seed,
        }
        output = evaluation_output(out, shaping, {"run": run, **judged.files})
        claim(output, fresh=fresh)
        measured = evaluate_run(
            read_run(run),
            judged.qrels,
            judged.turns,
            switches=judged.switches,
            topk=topk,
            paper_compat=paper_compat,
            relevance_level=relevance_level,
            seed=seed,
            corpus=judged.corpus,
        )
        output.begin(fresh=fresh)
        write_evaluation(
            out,
            measured,
            tag="run",
            settings={"run": str(run), **judged.settings},
            inputs=[run, *judged.inputs],
            seed=seed,
            made=output.record,
        )
        output.end()
        show(measured, out)
        return
    if dataset is None or qrels is not None:
        raise ConfigError("name the data set with --dataset; --qrels is for --run")
    if not methods.num_methods:
        raise ConfigError(
            "name what to evaluate: --rewrites FILE, --baseline raw|history|history:3, or --run "
            "FILE"
        )
    data = load_dataset(dataset)
    request = eval_table.Request(
        data=data,
        split=split,
        methods=methods,
        search=search,
        topk=DEFAULT_TOPK if topk is None else topk,
        limits=limits,
        paper_compat=paper_compat,
        relevance_level=relevance_level,
        seed=seed,
        out=out,
        fresh=fresh,
    )
    if methods.is_table:
        eval_table.make(request)
    else:
        _single(request)


def _single(request: eval_table.Request) -> None:
    """One method, written into the folder itself."""
    started = time.monotonic()
    data, methods = request.data, request.methods
    turns, switches = data.turns(request.split), data.topic_switches()
    tokens = request.limits.tokens
    if methods.baselines:
        tag, inputs = methods.baselines[0], []
        if is_concatenation(tag):
            tokens = request.limits.concat_tokens
        searched = searched_queries(turns, baseline_queries(turns, tag), switches)
    else:
        tag, inputs = "rewrites", [Path(methods.rewrites[0])]
        searched = searched_rewrites(turns, rewrites_to_measure(inputs[0]), switches)
    with (
        open_retriever(**vars(request.search)) as retriever,
        o.progress_bar("searching") as advance,
    ):
        settings = request.settings(retriever)
        files = {"turns": data.turns_path, "qrels": data.qrels_path}
        if inputs:
            files["rewrites"] = inputs[0]
        output = evaluation_output(request.out, {**request.shaping(settings), "tag": tag}, files)
        claim(output, fresh=request.fresh)
        measured = evaluate_searched(
            cut_queries(searched, request.limits.words),
            with_query_tokens(retriever, tokens),
            data.qrels,
            request.topk,
            paper_compat=request.paper_compat,
            relevance_level=request.relevance_level,
            seed=request.seed,
            on_progress=advance,
        )
    for path in inputs:
        warn_of_another_engine(path, settings["engine"])
    output.begin(fresh=request.fresh)
    write_evaluation(
        request.out,
        measured,
        tag=tag,
        settings=settings,
        inputs=[data.turns_path, data.qrels_path, *inputs],
        seed=request.seed,
        seconds=round(time.monotonic() - started, 3),
        made=output.record,
    )
    output.end()
    show(measured, request.out)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What a run file is held against."""

    qrels: Qrels
    files: dict[str, Path]
    turns: list[Turn] | None = None
    """None: every query of the qrels counts."""
    switches: Mapping[str, bool | None] | None = None
    corpus: Path | None = None
    """Of the data set, where there is one."""
    settings: dict[str, object] = field(default_factory=dict)
    """For the passport."""

    @property
    def inputs(self) -> list[Path]:
        """For the passport."""
        return [self.files["qrels"]]


def _judged(qrels: Path | None, dataset: Path | None, split: str) -> _Judged:
    if dataset is not None and qrels is None:
        data = load_dataset(dataset)
        return _Judged(
            qrels=data.qrels,
            files={"qrels": data.qrels_path, "turns": data.turns_path},
            turns=data.turns(split),
            switches=data.topic_switches(),
            corpus=data.corpus_path,
            settings={"dataset": data.name, "split": split},
        )
    if qrels is not None and dataset is None:
        return _Judged(qrels=read_qrels(qrels), files={"qrels": qrels})
    raise ConfigError("--run needs the judgements: either --qrels FILE or --dataset FOLDER")


def show(evaluation: Evaluation, out: Path) -> None:
    """The result in a few lines on stdout."""
    counts = evaluation.counts
    o.say(", ".join(f"{name} {count}" for name, count in counts.items()))
    o.say(f"{evaluation.num_averaged} averaged: {evaluation.note}")
    if said := unknown_golds_line(evaluation.golds):
        o.say(said)
    for name in METRICS:
        tail = ""
        if evaluation.intervals:
            low, high = evaluation.intervals[name]
            tail = f"  [{low:.4f}, {high:.4f}]"
        o.say(f"{metric_label(name, evaluation.topk):<12} {evaluation.metrics[name]:.4f}{tail}")
    o.say(f"written to {out}")
