"""`convsearch nano`: make the small policy of a domain, and measure how exactly it copies."""

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.help import Group
from convsearch.cli.nano_agent import teach
from convsearch.cli.steps import step_progress
from convsearch.data.dataset import load_dataset
from convsearch.errors import ConfigError
from convsearch.nano.copying import CopyReport, measure_copying
from convsearch.nano.examples import SpanSettings
from convsearch.nano.settings import NanoSettings

app = typer.Typer(cls=Group, help="Make and check a nano policy.", no_args_is_help=True)
app.command("teach-agent")(teach)

MIN_COPIED = 0.95
"""Below this share of copied words, reinforcement has little to work with."""

_DEFAULT = NanoSettings()


@app.command("build")
def build(
    dataset: Annotated[
        list[Path], typer.Option(help="data set folder; repeat it for one policy of several")
    ],
    out: Annotated[Path, typer.Option(help="folder of the policy; must not exist yet")],
    steps: Annotated[int, typer.Option(help="optimiser steps", min=1)] = _DEFAULT.steps,
    batch_size: Annotated[int, typer.Option(help="examples a step", min=1)] = _DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(help="peak learning rate of AdamW")] = _DEFAULT.lr,
    vocab_size: Annotated[int, typer.Option(help="tokenizer entries")] = _DEFAULT.vocab_size,
    hidden_size: Annotated[
        int, typer.Option(help="width of the model, in numbers for each token")
    ] = _DEFAULT.hidden_size,
    layers: Annotated[int, typer.Option(help="transformer layers")] = _DEFAULT.num_layers,
    max_spans: Annotated[
        int, typer.Option(help="most spans of the history in a target")
    ] = _DEFAULT.spans.max_spans,
    seed: Annotated[int, typer.Option(help="seed of weights and examples")] = _DEFAULT.seed,
) -> None:
    """Pre-train a policy that copies words of the conversation into the tagged format."""
    if out.exists():
        raise ConfigError(f"{out}: exists already; name another folder or remove it")
    from convsearch.nano.pretrain import Domain, build_nano

    for folder in dataset:
        load_dataset(folder)
    settings = NanoSettings(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=layers,
        spans=SpanSettings(max_spans=max_spans),
        seed=seed,
    )
    started = time.monotonic()
    with step_progress() as advance:
        report = build_nano(
            [Domain.load(folder) for folder in dataset],
            out,
            settings,
            command=shlex.join(["convsearch", *sys.argv[1:]]),
            on_progress=lambda step, loss: advance("pre-training", step, steps, f"loss {loss:.2f}"),
        )
    _tell(report)
    typer.echo(f"{out}: made in {(time.monotonic() - started) / 60:.0f} minutes")


@app.command("copying")
def copying(
    dataset: Annotated[Path, typer.Option(help="data set folder")],
    policy: Annotated[Path, typer.Option(help="folder of the policy")],
    split: Annotated[str, typer.Option(help="split the turns are drawn from")] = "train",
    seed: Annotated[int, typer.Option(help="seed of the draw and of the responses")] = 0,
) -> None:
    """Measure the share of words of a policy's rewrites that stand in the prompt."""
    _tell(measure_copying(policy, load_dataset(dataset).turns(split), seed=seed))


def _tell(report: CopyReport) -> None:
    verdict = "enough" if report.copied_share >= MIN_COPIED else "too few for reinforcement"
    typer.echo(
        f"copied words {report.copied_share:.2%} ({verdict}; at least {MIN_COPIED:.0%} wanted), "
        f"malformed {report.num_malformed} of {report.num_responses}, "
        f"{report.mean_rewrite_words:.1f} words a rewrite"
    )
