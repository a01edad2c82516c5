"""`convsearch doctor`: checks this machine for what the project needs, and says what to do."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from convsearch.cli.checks import FAIL, Finding, examine, index_files

MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def command(
    retriever_url: Annotated[
        str | None, typer.Option(help="Also check that this retrieval server is ready.")
    ] = None,
    index: Annotated[Path | None, typer.Option(help="Also check every byte of this index.")] = None,
    folder: Annotated[
        Path, typer.Option(help="Where runs will be written; its free space is checked.")
    ] = Path(),
) -> None:
    """Check versions, the verl plugin, memory, disk and a server; exit code 2 where one fails."""
    console = Console(highlight=False)
    findings = examine(folder, retriever_url)
    if index is not None:
        findings.append(index_files(index))
    for finding in findings:
        console.print(_line(finding), soft_wrap=True)
    if any(finding.state == FAIL for finding in findings):
        raise typer.Exit(2)


def _line(finding: Finding) -> Text:
    mark, colour = MARKS[finding.state]
    line = Text.assemble((mark, colour), f"  {finding.what}: {finding.found}")
    return line.append(f"; {finding.advice}") if finding.advice else line
