"""Options that the agent commands share, and the search tool that they name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.agent.formats import FormatName
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.cli import options as o
from convsearch.cli.agent_squeezer import SqueezerOptions, open_squeezer
from convsearch.episodes import AgentRun
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.no_search import NoSearch
from convsearch.errors import ConfigError, DependencyError
from convsearch.infer import Engine
from convsearch.pipeline.search import open_retriever

Questions = Annotated[Path, typer.Option("--dataset", help='Folder made by "convsearch data qa".')]
Split = Annotated[str, typer.Option("--split", help="Split whose questions are taken.")]
SetName = Annotated[str | None, typer.Option("--set", help="Only this data set, such as hotpotqa.")]
StrategyOption = Annotated[
    Literal["search_r1", "expand_search", "parallel_search", "rag", "direct"],
    typer.Option("--strategy", help="How the agent searches."),
]
FormatOption = Annotated[
    FormatName,
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
TemperatureOption = Annotated[
    float,
    typer.Option("--temperature", help="Temperature of sampling; 0 takes the most probable token."),
]
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
PlotForm = Literal["svg", "png", "none"]
Plots = Annotated[
    PlotForm,
    typer.Option("--plots", help="Form of the plots; left out where matplotlib is missing."),
]


@contextmanager
def search_tool(
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
        if squeezer.kind != "none" or squeezer.named:
            raise ConfigError(
                f"strategy {run.strategy.name!r} never searches, so there is nothing to squeeze; "
                "leave --squeezer and its options out"
            )
        yield SearchTool(NoSearch(), search)
        return
    with (
        open_retriever(index=index, url=url, encoder=encoder) as retriever,
        open_squeezer(squeezer, search, engine, run.strategy, num_questions) as opened,
    ):
        yield SearchTool(retriever, search, squeezer=opened, count_tokens=token_counter(engine))


def say_plots(form: PlotForm, write: Callable[[Literal["svg", "png"]], list[Path]]) -> None:
    """Draws and names the files; says so where matplotlib is missing."""
    if form == "none":
        return
    try:
        drawn = write(form)
    except DependencyError as error:
        o.say(f"no plots: {error}")
    else:
        o.say(f"plots: {', '.join(path.name for path in drawn) or 'nothing to draw'}")


def numbers(text: str, flag: str) -> list[int]:
    """Numbers with commas between them. Raises ConfigError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"{flag} takes numbers with commas, such as 1,2,3; got {text!r}"
        ) from None
