"""`convsearch index`: corpus -> index folder."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.cli import options as o
from convsearch.cli.bars import bars
from convsearch.errors import ConfigError

_ENGINES_OF = {
    **dict.fromkeys(("k1", "b"), ("bm25", "lucene")),
    "workers": ("bm25",),
    "java_heap": ("lucene",),
    **dict.fromkeys(
        (
            "encoder", "batch_size", "dtype", "query_prefix", "passage_prefix", "embeddings",
            "embedding_ids",
        ),
        ("dense",),
    ),
}  # fmt: skip
"""Options that not all engines have."""


def command(
    context: typer.Context,
    corpus: Annotated[
        Path, typer.Option(help="corpus.jsonl, or passages of other programs; also .csv, .tsv, .gz")
    ],
    out: Annotated[Path, typer.Option(help="index folder to make")],
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
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option(help="dense: how vectors are kept")
    ] = "bfloat16",
    query_prefix: Annotated[
        str, typer.Option(help='dense: what the encoder wants before a query, E5: "query: "')
    ] = "",
    passage_prefix: Annotated[
        str, typer.Option(help='dense: the same before a passage, E5: "passage: "')
    ] = "",
    embeddings: Annotated[
        Path | None,
        typer.Option(help="dense: doc_emb_cat.pkl of an earlier project, instead of encoding"),
    ] = None,
    embedding_ids: Annotated[
        Path | None, typer.Option(help="dense: doc_embid_cat.pkl beside it")
    ] = None,
    fresh: o.FreshOption = False,
) -> None:
    """Build a search index from a corpus; started again after a kill, it goes on where it was."""
    _refuse_options_of_others(context, engine)
    if fresh and os.environ.get("RANK", "0") == "0":  # of several processes the first
        from retriever_server.making import discard_unfinished

        discard_unfinished(out)
    if engine == "bm25":
        from retriever_server.indexing.bm25 import build_bm25_index
        from retriever_server.indexing.forecast import forecast_bm25

        forecast = forecast_bm25(corpus, workers=workers)
        print(forecast, file=sys.stderr)
        with bars({"analysing": forecast.num_passages, "merging": 1.0}) as report:
            manifest = build_bm25_index(
                corpus, out, k1=k1, b=b, workers=workers, keep=not fresh, on_progress=report
            )
    elif engine == "lucene":
        from retriever_server.indexing.forecast import forecast_lucene
        from retriever_server.indexing.lucene import build_lucene_index
        from retriever_server.lucene.jvm import heap_bytes

        forecast = forecast_lucene(corpus, heap_mb=heap_bytes(java_heap) / 1e6)
        print(forecast, file=sys.stderr)
        with bars({"indexing": forecast.num_passages}) as report:

            def resumed(done: int) -> None:
                print(forecast.after(done), file=sys.stderr)
                report("indexing", done)  # the bar takes its speed from what comes after

            manifest = build_lucene_index(
                corpus, out, k1=k1, b=b, java_heap=java_heap, keep=not fresh,
                on_resume=resumed, on_progress=lambda done: report("indexing", done),
            )  # fmt: skip
    else:
        from retriever_server.backends.prefixes import Prefixes
        from retriever_server.indexing.dense import build_dense_index
        from retriever_server.indexing.dense_import import import_dense_index

        if encoder is None:
            raise ConfigError("a dense index needs --encoder, the folder of the passage encoder")
        if (embeddings is None) != (embedding_ids is None):
            raise ConfigError("--embeddings and --embedding-ids go together; name both files")
        prefixes = Prefixes(query=query_prefix, passage=passage_prefix)
        if embeddings is not None and embedding_ids is not None:
            manifest = import_dense_index(
                corpus, out, encoder_path=encoder, embeddings_path=embeddings,
                ids_path=embedding_ids, dtype=dtype, prefixes=prefixes, keep=not fresh,
                on_forecast=lambda forecast: typer.echo(str(forecast), err=True),
                on_progress=_DenseLines(),
            )  # fmt: skip
        else:
            manifest = build_dense_index(
                corpus, out, encoder_path=encoder, batch_size=batch_size, dtype=dtype,
                prefixes=prefixes, keep=not fresh,
                on_forecast=lambda forecast: typer.echo(str(forecast), err=True),
                on_progress=_DenseLines(),
            )  # fmt: skip
    typer.echo(f"{out}: {manifest['engine']} index of {manifest['num_passages']} passages")


def _refuse_options_of_others(context: typer.Context, engine: str) -> None:
    """Raises ConfigError for an option that this engine would ignore."""
    for name, engines in _ENGINES_OF.items():
        source = context.get_parameter_source(name)
        if engine not in engines and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"--{name.replace('_', '-')} is not for a {engine} index; leave it out, or say "
                f"--engine {' or '.join(engines)}"
            )


class _DenseLines:
    """Passages done, speed and time left, on stderr every few seconds; of the first process."""

    EVERY_S = 5.0

    def __init__(self) -> None:
        self._start = self._said = time.monotonic()
        self._is_first = os.environ.get("RANK", "0") == "0"

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._is_first or (now - self._said < self.EVERY_S and done < total):
            return
        self._said = now
        speed = done / max(1e-9, now - self._start)
        left_min = (total - done) / max(1e-9, speed) / 60
        typer.echo(
            f"{done} of {total} passages, {speed:.1f} passages/s, {left_min:.1f} min left", err=True
        )
