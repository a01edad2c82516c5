"""`convsearch ann`: approximate search for a dense index, with its rank error."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convsearch.cli import options as o
from convsearch.cli.bars import bars
from convsearch.errors import ConfigError

if TYPE_CHECKING:
    from retriever_server.dense.ann_forecast import AnnForecast


def command(
    index: Annotated[Path, typer.Option(help="dense index folder")],
    encoder: Annotated[Path, typer.Option(help="folder of the encoder that made it")],
    factory: Annotated[str, typer.Option(help='FAISS index_factory string, as "IVF1024,SQ8"')],
    search: Annotated[
        list[str] | None,
        typer.Option(help='as "nprobe=32" or "efSearch=128"; several are compared, the last kept'),
    ] = None,
    turns: Annotated[
        Path | None, typer.Option(help="turns.jsonl whose questions measure the error")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="their gold passages")] = None,
    samples: Annotated[
        int, typer.Option(help="without turns: queries taken out of passages", min=1)
    ] = 500,
    fresh: o.FreshOption = False,
) -> None:
    """Search a dense index approximately from now on; prints how many ranks that gets wrong.

    Started again after a kill, it goes on where it was."""
    from retriever_server.dense.ann import ANN
    from retriever_server.indexing.ann import build_ann_index
    from retriever_server.making import discard_unfinished

    if (turns is None) != (qrels is None):
        raise ConfigError("--turns and --qrels go together; name both files")
    queries = _questions(turns, qrels) if turns is not None and qrels is not None else []
    searches = search or [""]
    if fresh:
        discard_unfinished(index / ANN)
    with _Told(1 + len(searches)) as told:
        errors = build_ann_index(
            index, encoder_path=encoder, factory=factory, searches=searches, queries=queries,
            num_samples=samples, keep=not fresh,
            on_forecast=told.forecast, on_resume=told.resume, on_progress=told.progress,
        )  # fmt: skip
    for error in errors:
        typer.echo(str(error))
    typer.echo(f"{index / 'ann'}: kept; delete this folder to search exactly again")


class _Told(ExitStack):
    """What is said on stderr meanwhile: the forecast, then bars."""

    def __init__(self, num_measured: int) -> None:
        super().__init__()
        self._num_measured = num_measured
        self._report: Callable[[str, float], None] | None = None

    def forecast(self, forecast: "AnnForecast") -> None:
        """Before the work."""
        typer.echo(str(forecast), err=True)
        self._forecast = forecast

    def resume(self, done: int) -> None:
        """Where a killed build goes on."""
        typer.echo(self._forecast.after(done), err=True)

    def progress(self, what: str, done: float) -> None:
        """Training is one call of FAISS, so a line tells of it, and bars come after it."""
        if what == "training":
            if not done and self._forecast.train_rows:
                typer.echo(self._forecast.training, err=True)
            return
        if self._report is None:
            work = {"adding": self._forecast.num_vectors, "measuring": self._num_measured}
            self._report = self.enter_context(bars(work))
        self._report(what, done)


def _questions(turns_path: Path, qrels_path: Path) -> list[tuple[str, list[str]]]:
    """The question of each turn that has a gold passage, and its gold passages."""
    from convsearch.files import read_qrels, read_turns

    qrels = read_qrels(qrels_path)
    found = []
    for turn in read_turns(turns_path):
        golds = [doc for doc, relevance in qrels.get(turn.qid, {}).items() if relevance > 0]
        if golds:
            found.append((turn.question, golds))
    if not found:
        raise ConfigError(f"{qrels_path}: no gold passage for any turn of {turns_path}")
    return found
