"""`convsearch report`: the page of a finished run, or the curves of a training, from files."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.pipeline.layout import RunLayout
from convsearch.report.page import write_report
from convsearch.report.training_curves import write_training_curves


def command(
    run: Annotated[
        Path,
        typer.Option(
            help="Folder of a finished run; or of a training by hand, whose curves are drawn."
        ),
    ] = Path("runs/quickstart"),
) -> None:
    """Build report.html of a finished run from its files, or the curves of a training."""
    if RunLayout(root=run).summary.is_file():
        print(write_report(run))
        return
    for path in write_training_curves(run):
        print(path)
