"""`convsearch serve`: index folder -> the retrieval server in the foreground."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    index: Annotated[Path, typer.Option(help='made by "convsearch index", or a Lucene index')],
    qrels: Annotated[
        Path | None, typer.Option(help="gold passages of the query ids that clients send")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="dense: folder of the query encoder")] = None,
    k1: Annotated[
        float | None, typer.Option(help="BM25 of a Lucene index, chosen when it is opened")
    ] = None,
    b: Annotated[float | None, typer.Option(help="as --k1")] = None,
    java_heap: Annotated[
        str | None, typer.Option(help="lucene: largest heap of Java, such as 4g")
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; there is no authentication")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free port")] = 8000,
) -> None:
    """Serve an index over HTTP until Ctrl-C."""
    from retriever_server.server import ServerSettings, serve

    settings = ServerSettings(
        index_path=index,
        trec_path=qrels,
        encoder_path=encoder,
        k1=k1,
        b=b,
        java_heap=java_heap,
        host=host,
        port=port,
    )
    serve(settings)
