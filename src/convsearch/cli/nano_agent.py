"""`convsearch nano teach-agent`: a small search agent, taught in made-up worlds."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.steps import step_progress
from convsearch.errors import ConfigError
from convsearch.nano.agent_pretrain import AgentTeaching, teach_agent
from convsearch.retrieval import Retriever
from convsearch.types import Passage

_DEFAULT = AgentTeaching()


def teach(
    out: Annotated[Path, typer.Option(help="folder of the policy; must not exist yet")],
    worlds: Annotated[int, typer.Option(help="worlds to play in", min=1)] = _DEFAULT.worlds,
    first_world: Annotated[
        int, typer.Option(help="seed of the first world; the next ones follow it")
    ] = _DEFAULT.first_world,
    episodes: Annotated[
        int, typer.Option(help="right episodes to learn from", min=100)
    ] = _DEFAULT.episodes,
    steps: Annotated[int, typer.Option(help="optimiser steps", min=1)] = _DEFAULT.steps,
    batch_size: Annotated[int, typer.Option(help="episodes a step", min=1)] = _DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(help="peak learning rate of AdamW")] = _DEFAULT.lr,
    variants: Annotated[
        int, typer.Option(help="queries that it learns to write in a call", min=1)
    ] = _DEFAULT.variants,
    topk: Annotated[int, typer.Option(help="passages of each query", min=1)] = _DEFAULT.topk,
    seed: Annotated[int, typer.Option(help="of weights, episodes and order")] = _DEFAULT.seed,
) -> None:
    """Teach a small search agent on episodes of a rule-based player, played in made-up worlds."""
    if out.exists():
        raise ConfigError(f"{out}: exists already; name another folder or remove it")
    settings = AgentTeaching(
        worlds=worlds,
        first_world=first_world,
        episodes=episodes,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        variants=variants,
        topk=topk,
        seed=seed,
    )
    with step_progress() as advance:
        report = teach_agent(
            out,
            settings,
            _bm25,
            command=shlex.join(["convsearch", *sys.argv[1:]]),
            on_progress=advance,
        )
    typer.echo(
        f"{out}: {report.parameters / 1e6:.1f} million parameters; in a world that it has not seen "
        f"cross-entropy {report.held_out_loss:.3f}, {report.held_out_accuracy:.1%} of the tokens "
        f"most likely; {report.minutes:.0f} minutes"
    )


def _bm25(passages: Sequence[Passage]) -> Retriever:
    """BM25 in memory, reading words as the server's index does."""
    from convsearch.retrieval.memory import InMemoryRetriever
    from retriever_server.analyzer import Analyzer

    return InMemoryRetriever(passages, analyze=Analyzer())
