"""`convsearch index`: corpus -> index folder."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from convsearch.errors import ConfigError


def command(
    corpus: Annotated[Path, typer.Option(help="corpus.jsonl, or .jsonl.gz")],
    out: Annotated[Path, typer.Option(help="index folder to make; an older index is replaced")],
    engine: Annotated[
        Literal["bm25", "lucene", "dense"], typer.Option(help="how passages are searched")
    ] = "bm25",
    k1: Annotated[float, typer.Option(help="BM25: how soon repeats of a word stop to count")] = 0.9,
    b: Annotated[float, typer.Option(help="BM25: how much long passages are held back")] = 0.4,
    workers: Annotated[
        int | None, typer.Option(help="bm25: processes; by default one for each processor", min=1)
    ] = None,
    java_heap: Annotated[
        str | None, typer.Option(help="lucene: largest heap of Java, such as 4g")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="dense: folder of the encoder")] = None,
    batch_size: Annotated[int, typer.Option(help="dense: passages encoded at once")] = 32,
) -> None:
    """Build a search index from a corpus; started again after a kill, it goes on where it was."""
    if engine == "bm25":
        from retriever_server.indexing.bm25 import build_bm25_index
        from retriever_server.indexing.forecast import forecast_bm25

        forecast = forecast_bm25(corpus, workers=workers)
        print(forecast, file=sys.stderr)
        with _progress(forecast.num_passages) as report:
            manifest = build_bm25_index(
                corpus, out, k1=k1, b=b, workers=workers, on_progress=report
            )
    elif engine == "lucene":
        from retriever_server.indexing.lucene import build_lucene_index

        manifest = build_lucene_index(corpus, out, k1=k1, b=b, java_heap=java_heap)
    else:
        from retriever_server.indexing.dense import build_dense_index

        if encoder is None:
            raise ConfigError("a dense index needs --encoder, the folder of the passage encoder")
        manifest = build_dense_index(corpus, out, encoder_path=encoder, batch_size=batch_size)
    typer.echo(f"{out}: {manifest['engine']} index of {manifest['num_passages']} passages")


@contextmanager
def _progress(num_passages: int) -> Iterator[Callable[[str, float], None]]:
    """A bar with the time that is left, on stderr, for passages analysed and then the merge."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks = {
            "analysing": bars.add_task("analysing", total=num_passages),
            "merging": bars.add_task("merging", total=1.0, start=False),
        }

        def report(what: str, done: float) -> None:
            if what == "merging" and not bars.tasks[tasks[what]].started:
                bars.update(tasks["analysing"], completed=num_passages)
                bars.start_task(tasks[what])
            bars.update(tasks[what], completed=min(done, bars.tasks[tasks[what]].total or done))

        yield report
