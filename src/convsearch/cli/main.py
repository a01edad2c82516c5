"""`convsearch`: one command for each arrow in the way of the data, in that order."""

from typing import Annotated

import stamina
import stamina.instrumentation
import typer

from convsearch import __version__
from convsearch.cli import (
    agent,
    ann,
    compare,
    data,
    distill,
    doctor,
    evaluate,
    grpo,
    hub,
    index,
    infer,
    merge,
    nano,
    quickstart,
    report,
    reproduce,
    rewrite,
    serve,
    serve_rewriter,
    sft,
)
from convsearch.cli.doors import run_door
from convsearch.cli.help import Group, under_headings
from convsearch.cli.retry_lines import RetryLines


class _InOrder(Group):
    """Lists commands and groups in the order of the data's way; typer alone puts groups last."""

    def list_commands(self, ctx) -> list[str]:  # of a type that some versions of typer vendor
        return sorted(super().list_commands(ctx), key=FLOW.index)


FLOW = (
    "data", "index", "ann", "serve", "distill", "sft", "grpo", "merge", "infer", "rewrite",
    "serve-rewriter", "eval", "compare", "report", "agent", "hub", "reproduce", "quickstart",
    "nano", "doctor",
)  # fmt: skip

app = typer.Typer(
    name="convsearch",
    cls=_InOrder,
    help="Train language models to search, taught by the rank of the right passage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes cut the names of options
    context_settings={"max_content_width": 100},
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"convsearch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.add_typer(data.app, name="data")
app.command("index")(index.command)
app.command("ann")(ann.command)
app.command("serve")(serve.command)
app.command("distill")(distill.command)
app.command("sft", cls=under_headings(sft.HEADINGS))(sft.command)
app.command("grpo", cls=under_headings(grpo.HEADINGS))(grpo.command)
app.command("merge")(merge.command)
app.command("infer")(infer.command)
app.command("rewrite")(rewrite.command)
app.command("serve-rewriter")(serve_rewriter.command)
app.command("eval")(evaluate.command)
app.command("compare")(compare.command)
app.add_typer(agent.app, name="agent")
app.command("report")(report.command)
app.add_typer(hub.app, name="hub")
app.command("reproduce")(reproduce.command)
app.command("quickstart")(quickstart.command)
app.add_typer(nano.app, name="nano")
app.command("doctor")(doctor.command)


def main() -> None:
    """Entry point; errors end as `run_door` says."""
    stamina.instrumentation.set_on_retry_hooks([RetryLines()])
    run_door(app)
