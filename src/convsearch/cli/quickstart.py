"""`convsearch quickstart`: the whole main job, every stage with a line of progress."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convsearch.cli.progress import StageProgress
from convsearch.pipeline.config import PipelineConfig
from convsearch.pipeline.own_run import check_own_run, few_examples
from convsearch.pipeline.presets import PRESETS, preset
from convsearch.pipeline.rivals import shown_rows, strongest, training_free
from convsearch.pipeline.summary import Summary
from convsearch.report.page import metric_labels
from convsearch.report.verdict import findings, headline, next_steps, one_run_note
from convsearch.visible import visible_line

INTERRUPTED = 130
TERMINATED = 143


def command(
    preset_name: Annotated[
        str, typer.Option("--preset", help=f"What to run: {', '.join(PRESETS)}.")
    ] = "mini",
    dataset: Annotated[
        Path | None,
        typer.Option(help="Data set folder of convsearch data ..., instead of the preset's data."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. [default: runs/quickstart, PRESET or DATASET]"),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder of the pooled data set, for presets that need one.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the policy to start from. [default: the preset's; with --dataset, one "
            "that the run builds]"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, as grpo.total_steps=40; may be repeated."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of reusing finished stages.")
    ] = False,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print all settings of the run and stop.")
    ] = False,
) -> None:
    """Run the whole main job, from data to report; interrupted runs go on where they were."""
    config = preset(
        preset_name, source=source, policy=policy, dataset=dataset, overrides=settings or []
    )
    if show_settings:
        for key, value in config.flat().items():
            print(f"{key}={value}")
        return
    named = config.dataset if dataset else "quickstart" if preset_name == "mini" else preset_name
    folder = run or Path("runs") / named
    for line in check_own_run(config) if dataset else ():
        print(line, file=sys.stderr)
    summary = _run(config, folder, fresh=fresh)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(result_table(summary))
    for line in (headline(summary), *findings(summary), one_run_note()):
        console.print(line, highlight=False, markup=False)
    if few := few_examples(config, summary.distill_counts):
        print(few, file=sys.stderr)
    for what, how in next_steps(folder):
        print(f"{what}: {how}")
    print(f"report: {folder / 'report.html'}")


def _run(config: PipelineConfig, folder: Path, *, fresh: bool) -> Summary:
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of other packages would break the lines
    from convsearch.pipeline.pipeline import run_pipeline

    try:
        with _terminate_like_interrupt(), StageProgress() as progress:
            return run_pipeline(
                config,
                folder,
                progress,
                fresh=fresh,
                command=" ".join(["convsearch", *sys.argv[1:]]),
            )
    except KeyboardInterrupt:
        print(
            f"interrupted; all processes are stopped. Run the same command to go on in {folder}",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM unwinds the stack, as Ctrl-C does, so that everything started is also stopped."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def result_table(summary: Summary) -> Table:
    """What was measured: `raw`, `history`, the best other rows without training, the policies."""
    title = f"{summary.dataset}, {summary.num_queries} queries of {summary.eval_split}"
    best, num_free = strongest(summary.stages), len(training_free(summary.stages))
    table = Table(
        title=Text(visible_line(title)),
        caption=f"* strongest of {num_free} rows without training, chosen on this split",
    )
    table.add_column("queries", no_wrap=True)
    labels = metric_labels(summary)
    for label in (labels["mrr"], "95 % interval", "x raw", "malformed", *list(labels.values())[1:]):
        table.add_column(label, justify="right")
    raw = summary.stages["raw"].metrics["mrr"]
    for name in shown_rows(summary.stages):
        result = summary.stages[name]
        low, high = result.mrr_interval
        mrr, *others = (f"{result.metrics[metric]:.3f}" for metric in labels)
        table.add_row(
            f"{name} *" if name == best else name,
            mrr,
            f"{low:.3f} - {high:.3f}",
            f"{result.metrics['mrr'] / raw:.2f}" if raw else "-",
            str(result.num_malformed),
            *others,
            end_section=name == training_free(summary.stages)[-1],
        )
    return table
