"""`convsearch agent`: search agents over questions: infer, eval, chat, ablate and sweep."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from convsearch.agent import strategy, tool_format
from convsearch.agent.model_squeezer import SqueezeBudget
from convsearch.agent.records import read_episodes
from convsearch.agent.search import SearchSettings
from convsearch.cli import options as o
from convsearch.cli.agent_ablate import ablate
from convsearch.cli.agent_options import (
    DocumentsOption,
    FormatOption,
    Plots,
    Price,
    Questions,
    ResultOption,
    SeedOption,
    SetName,
    Split,
    SqueezerCache,
    SqueezerModel,
    SqueezerOption,
    SqueezerTokens,
    SqueezerUrl,
    StrategyOption,
    TemperatureOption,
    TokensOption,
    TopkOption,
    TurnsOption,
    VariantsOption,
    say_plots,
    search_tool,
)
from convsearch.cli.agent_outputs import claimed
from convsearch.cli.agent_squeezer import SqueezerOptions
from convsearch.cli.agent_sweep import sweep
from convsearch.cli.agent_training import curves, paired
from convsearch.cli.agent_view import TurnView, show_scores
from convsearch.cli.help import Group
from convsearch.data.questions import load_questions
from convsearch.episodes import AgentRun, count_episodes, infer_episodes, run_block
from convsearch.episodes.evaluation import equal_budget, read_passport, score_run, write_scores
from convsearch.episodes.latency import read_seconds
from convsearch.errors import ConfigError
from convsearch.files import atomic_write, stem_of
from convsearch.infer import SamplingParams
from convsearch.infer.failures import Failures
from convsearch.infer.journal import passport_path
from convsearch.report.agent_charts import write_score_charts
from convsearch.report.published_answers import beside_published
from convsearch.types import Question

app = typer.Typer(
    cls=Group,
    help="Search agents: questions -> episodes -> answers and their scores.",
    no_args_is_help=True,
)
app.command()(ablate)
app.command()(sweep)
app.command()(paired)
app.command()(curves)


@app.command()
def infer(
    dataset: Questions,
    out: Annotated[Path, typer.Option(help="episodes.jsonl to write; passport beside it.")],
    split: Split = "dev",
    set_name: SetName = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    strategy_name: StrategyOption = "expand_search",
    form: FormatOption = "plain",
    variants: VariantsOption = None,
    max_turns: TurnsOption = 4,
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    engine_url: o.EngineUrlOption = None,
    engine_ids: o.EngineIdsOption = False,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    temperature: TemperatureOption = 0.0,
    max_tokens: TokensOption = 512,
    seed: SeedOption = 0,
    batch_size: o.BatchOption = None,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    topk: TopkOption = 3,
    max_documents: DocumentsOption = None,
    max_result_tokens: ResultOption = 1024,
    squeezer: SqueezerOption = "none",
    squeezer_model: SqueezerModel = None,
    squeezer_url: SqueezerUrl = None,
    squeezer_cache: SqueezerCache = None,
    squeezer_max_tokens: SqueezerTokens = None,
    usd_per_million_input: Price = 0.0,
    usd_per_million_output: Price = 0.0,
    fresh: o.FreshOption = False,
    retry_failed: o.RetryOption = False,
) -> None:
    """Answer every question of a split; an interrupted run goes on where it stopped."""
    data = load_questions(dataset)
    questions = data.questions(split, set_name)[:limit]
    run = AgentRun(
        strategy=strategy(strategy_name, num_variants=variants, max_turns=max_turns),
        form=tool_format(form),
        params=SamplingParams(temperature=temperature, max_tokens=max_tokens),
        seed=seed,
        batch_size=o.batch_size_of(engine, batch_size),
        labels={"retriever": str(index or retriever_url or "none")},
    )
    search = SearchSettings(
        topk=topk, max_documents=max_documents, max_result_tokens=max_result_tokens
    )
    chosen = SqueezerOptions(
        kind=squeezer,
        model=squeezer_model,
        url=squeezer_url,
        cache=squeezer_cache,
        device=device,
        budget=SqueezeBudget(
            max_total_tokens=squeezer_max_tokens,
            usd_per_million_input=usd_per_million_input,
            usd_per_million_output=usd_per_million_output,
        ),
    )
    with (
        o.engine_of(
            engine, model, url=engine_url, device=device, dtype=dtype, tells_ids=engine_ids
        ) as opened,
        search_tool(
            run, opened, search, chosen, index=index, url=retriever_url, encoder=encoder,
            num_questions=len(questions),
        ) as tool,
        o.progress_bar("answering") as advance,
    ):  # fmt: skip
        episodes = infer_episodes(
            questions,
            opened,
            tool,
            run,
            out_path=out,
            fresh=fresh,
            retry_failed=retry_failed,
            inputs=[data.questions_path],
            on_progress=advance,
        )
    counts = count_episodes(episodes)
    o.say(f"{out}: {', '.join(f'{name} {count}' for name, count in counts.items())}")


@app.command("eval")
def evaluate(
    episodes: Annotated[list[Path], typer.Argument(help='Files made by "convsearch agent infer".')],
    dataset: Questions,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, per_question.jsonl.")],
    split: Split = "dev",
    set_name: SetName = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many questions, as at inference.", min=1)
    ] = None,
    max_documents: Annotated[
        int | None, typer.Option(help="Budget of the equal comparison; by default the smallest.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The same in tokens: written and read, all turns.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
    published: Annotated[
        bool,
        typer.Option("--published", help="Beside what others published on the seven sets."),
    ] = False,
    plots: Plots = "svg",
    fresh: o.FreshOption = False,
) -> None:
    """Score runs beside each other: as they are, and within equal documents and tokens."""
    data = load_questions(dataset)
    questions = data.questions(split, set_name)[:limit]
    golds = {question.qid: data.golds(question.qid) for question in questions}
    names = _names(episodes)
    settings = {
        "split": split,
        "set": set_name,
        "max_documents": max_documents,
        "max_tokens": max_tokens,
    }
    files = {"questions": data.questions_path, "qrels": data.qrels_path}
    output = claimed(
        out,
        "agent eval",
        {**settings, "limit": limit, "seed": seed},
        {**files, **dict(zip(names, episodes, strict=True))},
        fresh=fresh,
    )
    runs = [
        score_run(
            name,
            read_episodes(path),
            questions,
            golds,
            passport=read_passport(passport_path(path)),
            seconds_of=read_seconds(path),
            seed=seed,
        )
        for name, path in zip(names, episodes, strict=True)
    ]
    budget = equal_budget(runs, max_documents, max_tokens)
    output.begin(fresh=fresh)
    write_scores(
        out,
        runs,
        budget,
        settings=settings,
        inputs=[data.questions_path, data.qrels_path, *episodes],
        seed=seed,
        made=output.record,
    )
    output.end()
    o.say(show_scores(runs, budget))
    if published:
        beside = beside_published(runs)
        with atomic_write(out / "published.md") as stream:
            stream.write(f"{beside}\n")
        o.say(beside)
    say_plots(plots, lambda kind: write_score_charts(out, runs, form=kind))
    o.say(f"written to {out}")


@app.command()
def chat(
    question: Annotated[
        list[str] | None, typer.Argument(help="Questions; without any they are read from stdin.")
    ] = None,
    strategy_name: StrategyOption = "expand_search",
    form: FormatOption = "plain",
    variants: VariantsOption = None,
    max_turns: TurnsOption = 4,
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    temperature: TemperatureOption = 0.0,
    max_tokens: TokensOption = 512,
    seed: SeedOption = 0,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    topk: TopkOption = 3,
    max_documents: DocumentsOption = None,
    max_result_tokens: ResultOption = 1024,
    squeezer: SqueezerOption = "none",
    squeezer_model: SqueezerModel = None,
    squeezer_url: SqueezerUrl = None,
) -> None:
    """Ask an agent and watch its turns.

    Exit code 2 where no question got as far as an answer of the model.
    """
    failures: Failures[None] = Failures(what="questions")
    run = AgentRun(
        strategy=strategy(strategy_name, num_variants=variants, max_turns=max_turns),
        form=tool_format(form),
        params=SamplingParams(temperature=temperature, max_tokens=max_tokens),
        seed=seed,
    )
    search = SearchSettings(
        topk=topk, max_documents=max_documents, max_result_tokens=max_result_tokens
    )
    chosen = SqueezerOptions(kind=squeezer, model=squeezer_model, url=squeezer_url, device=device)
    with (
        o.engine_of(engine, model, url=engine_url, device=device, dtype=dtype) as opened,
        search_tool(
            run, opened, search, chosen, index=index, url=retriever_url, encoder=encoder,
            num_questions=None,
        ) as tool,
    ):  # fmt: skip
        for number, text in enumerate(question or _asked(), 1):
            asked = Question(
                qid=f"chat{number}", dataset="chat", question=text, answers=(), type="", split=""
            )
            view = TurnView()
            [episode] = run_block([asked], opened, tool, run, watch=view.show)
            view.end(episode)
            failures.passed(None, [episode.error])
    failures.end()


def _names(paths: list[Path]) -> list[str]:
    """Short names of files: their stems, or their paths where two are the same. Raises ConfigError
    for a file that is named twice."""
    if len(set(paths)) < len(paths):
        raise ConfigError("a file of episodes is named twice; name each once")
    stems = [stem_of(path) for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _asked() -> Iterator[str]:
    """Lines of stdin until it ends or a line is empty."""
    while True:
        if sys.stdin.isatty():
            print("question> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
