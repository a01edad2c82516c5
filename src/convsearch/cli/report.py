"""`convsearch report`: builds the page of a finished run anew from its files."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.report.page import write_report


def command(
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")] = Path("runs/quickstart"),
) -> None:
    """Build report.html of a finished run from its files."""
    print(write_report(run))
