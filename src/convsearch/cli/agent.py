"""`convsearch agent`: search agents over questions: infer, eval, chat, and the ablation of n."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.agent import strategy, tool_format
from convsearch.agent.ablation import ablate_variants, ablation_table
from convsearch.agent.model_squeezer import SqueezeBudget
from convsearch.agent.records import read_episodes
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.cli import options as o
from convsearch.cli.agent_squeezer import SqueezerOptions, open_squeezer
from convsearch.cli.agent_view import TurnView, show_scores
from convsearch.data.questions import load_questions
from convsearch.episodes import AgentRun, count_episodes, infer_episodes, run_block
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.evaluation import equal_budget, score_run, write_scores
from convsearch.episodes.no_search import NoSearch
from convsearch.errors import ConfigError, DataError
from convsearch.files import atomic_write
from convsearch.infer import Engine, SamplingParams
from convsearch.infer.runner import passport_path
from convsearch.passport import write_passport
from convsearch.pipeline.search import open_retriever
from convsearch.types import Question

app = typer.Typer(
    help="Search agents: questions -> episodes -> answers and their scores.", no_args_is_help=True
)

Questions = Annotated[Path, typer.Option("--dataset", help='Folder made by "convsearch data qa".')]
Split = Annotated[str, typer.Option("--split", help="Which questions.")]
SetName = Annotated[str | None, typer.Option("--set", help="Only this data set, such as hotpotqa.")]
StrategyOption = Annotated[
    Literal["search_r1", "expand_search", "parallel_search", "rag", "direct"],
    typer.Option("--strategy", help="How the agent searches."),
]
FormatOption = Annotated[
    Literal["plain", "hermes", "search_r1"],
    typer.Option("--format", help="Form of calls: ours, or that of released checkpoints."),
]
VariantsOption = Annotated[
    int | None, typer.Option("--variants", help="Queries of one call; 3 where several are sent.")
]
TurnsOption = Annotated[int, typer.Option("--max-turns", help="Texts that the model may write.")]
TopkOption = Annotated[int, typer.Option("--topk", help="Passages of each query.")]
DocumentsOption = Annotated[
    int | None,
    typer.Option("--max-documents", help="Passages of one call after fusion: an equal budget."),
]
ResultOption = Annotated[
    int, typer.Option("--max-result-tokens", help="Longest text that one call brings back.")
]
TokensOption = Annotated[int, typer.Option("--max-tokens", help="Longest text of one turn.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="0 is greedy.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Same seed, same episodes.")]
SqueezerOption = Annotated[
    Literal["none", "extractive", "llm", "hf"],
    typer.Option("--squeezer", help="What distils the passages; llm and hf need a model."),
]
SqueezerModel = Annotated[
    str | None, typer.Option("--squeezer-model", help="Endpoint's name, or checkpoint folder.")
]
SqueezerUrl = Annotated[
    str | None, typer.Option("--squeezer-url", help="llm: address of the endpoint.")
]
SqueezerCache = Annotated[
    Path | None, typer.Option("--squeezer-cache", help="File that keeps what was squeezed.")
]
SqueezerTokens = Annotated[
    int | None, typer.Option("--squeezer-max-tokens", help="Token budget of the whole run.")
]
Price = Annotated[float, typer.Option(help="USD for a million tokens, for the estimate.")]


@contextmanager
def _tool(
    run: AgentRun,
    engine: Engine,
    search: SearchSettings,
    squeezer: SqueezerOptions,
    *,
    index: Path | None,
    url: str | None,
    encoder: Path | None,
    num_questions: int | None,
) -> Iterator[SearchTool]:
    """The search tool that the options name. num_questions: None says nothing about costs."""
    searches = run.strategy.searches or run.strategy.retrieves_first
    if not searches:
        yield SearchTool(NoSearch(), search)
        return
    with (
        open_retriever(index=index, url=url, encoder=encoder) as retriever,
        open_squeezer(squeezer, search, engine, run.strategy, num_questions) as opened,
    ):
        yield SearchTool(retriever, search, squeezer=opened, count_tokens=token_counter(engine))


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
        o.engine_of(engine, model, url=engine_url, device=device, dtype=dtype) as opened,
        _tool(
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
    limit: Annotated[int | None, typer.Option(help="As at inference.", min=1)] = None,
    max_documents: Annotated[
        int | None, typer.Option(help="Budget of the equal comparison; by default the smallest.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Score runs beside each other: as they are, and within one number of documents."""
    data = load_questions(dataset)
    questions = data.questions(split, set_name)[:limit]
    golds = {question.qid: data.golds(question.qid) for question in questions}
    names = _names(episodes)
    runs = [
        score_run(
            name,
            read_episodes(path),
            questions,
            golds,
            passport=_passport(path),
            seed=seed,
        )
        for name, path in zip(names, episodes, strict=True)
    ]
    budget = equal_budget(runs, max_documents)
    write_scores(
        out,
        runs,
        budget,
        settings={"split": split, "set": set_name, "max_documents": max_documents},
        inputs=[data.questions_path, data.qrels_path, *episodes],
        seed=seed,
    )
    o.say(show_scores(runs, budget))
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
    """Ask an agent and watch its turns."""
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
        _tool(
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


@app.command()
def ablate(
    dataset: Questions,
    out: Annotated[Path, typer.Option(help="Folder for ablation.json and ablation.md.")],
    split: Split = "dev",
    set_name: SetName = None,
    type_name: Annotated[
        str | None, typer.Option("--type", help="Only this kind of question, such as comparison.")
    ] = None,
    variants: Annotated[str, typer.Option(help="Numbers of queries.")] = "1,2,3,5",
    topk: Annotated[str, typer.Option(help="Passages of each query.")] = "3,5,10",
    top: Annotated[int, typer.Option(help="Depth of the fused list that is scored.")] = 10,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Measure what several queries find, without a model: variants by rules, all-gold recall."""
    started = time.monotonic()
    data = load_questions(dataset)
    chosen = data.questions(split, set_name)
    questions = [q for q in chosen if data.golds(q.qid) and type_name in (None, q.type)]
    if not questions:
        types = ", ".join(sorted({q.type for q in chosen}))
        raise DataError(
            f"{data.questions_path}: no question of type {type_name or 'any'} with a gold passage "
            f"in this split; types here: {types}"
        )
    ns, ks = _numbers(variants, "--variants"), _numbers(topk, "--topk")
    golds = {question.qid: data.golds(question.qid) for question in questions}
    with open_retriever(index=index, url=retriever_url, encoder=encoder) as retriever:
        rows = ablate_variants(questions, golds, retriever, ns=ns, ks=ks, top=top, seed=seed)
    table = ablation_table(rows, top)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "ablation.json") as stream:
        json.dump([asdict(row) for row in rows], stream, indent=2)
        stream.write("\n")
    with atomic_write(out / "ablation.md") as stream:
        stream.write(f"{table}\n")
    write_passport(
        out / "run.json",
        stage="agent ablate",
        settings={
            "split": split, "set": set_name, "type": type_name, "variants": ns, "topk": ks,
            "top": top, "retriever": str(index or retriever_url),
        },
        inputs=[data.questions_path, data.qrels_path],
        counts={"questions": len(questions)},
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip
    o.say(f"{len(questions)} questions with gold passages")
    o.say(table)


def _numbers(text: str, flag: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"{flag} takes numbers with commas, such as 1,2,3; got {text!r}"
        ) from None


def _names(paths: list[Path]) -> list[str]:
    """Short names of files: their stems, or their paths where two are the same."""
    stems = [path.name.partition(".")[0] for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _passport(path: Path) -> dict[str, object] | None:
    beside = passport_path(path)
    if not beside.is_file():
        return None
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{beside}: not a passport; remove it or make the run again") from None
    return found if isinstance(found, dict) else None


def _asked() -> Iterator[str]:
    """Lines of stdin until it ends or a line is empty."""
    while True:
        if sys.stdin.isatty():
            print("question> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
