"""`convsearch index`: corpus -> index folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.errors import ConfigError


def command(
    corpus: Annotated[Path, typer.Option(help="corpus.jsonl, or .jsonl.gz")],
    out: Annotated[Path, typer.Option(help="index folder to make; an older index is replaced")],
    engine: Annotated[
        Literal["bm25", "lucene", "dense"], typer.Option(help="how passages are searched")
    ] = "bm25",
    k1: Annotated[float, typer.Option(help="BM25: how soon repeats of a word stop to count")] = 0.9,
    b: Annotated[float, typer.Option(help="BM25: how much long passages are held back")] = 0.4,
    java_heap: Annotated[
        str | None, typer.Option(help="lucene: largest heap of Java, such as 4g")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="dense: folder of the encoder")] = None,
    batch_size: Annotated[int, typer.Option(help="dense: passages encoded at once")] = 32,
) -> None:
    """Build a search index from a corpus."""
    if engine == "bm25":
        from retriever_server.indexing.bm25 import build_bm25_index

        manifest = build_bm25_index(corpus, out, k1=k1, b=b)
    elif engine == "lucene":
        from retriever_server.indexing.lucene import build_lucene_index

        manifest = build_lucene_index(corpus, out, k1=k1, b=b, java_heap=java_heap)
    else:
        from retriever_server.indexing.dense import build_dense_index

        if encoder is None:
            raise ConfigError("a dense index needs --encoder, the folder of the passage encoder")
        manifest = build_dense_index(corpus, out, encoder_path=encoder, batch_size=batch_size)
    typer.echo(f"{out}: {manifest['engine']} index of {manifest['num_passages']} passages")
