"""`convsearch serve`: index folders -> the retrieval server in the foreground."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from convsearch.errors import ConfigError
from convsearch.listening import read_api_key
from convsearch.retrieval.transport import API_KEY_VARIABLE


def command(
    index: Annotated[
        list[str],
        typer.Option(help='by "convsearch index", or of Lucene; several: NAME=FOLDER, repeated'),
    ],
    qrels: Annotated[
        list[str] | None,
        typer.Option(help="gold passages of the query ids that clients send; or NAME=FILE"),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="dense: folder of the query encoder; or NAME=FOLDER"),
    ] = None,
    fuse_with: Annotated[
        Path | None, typer.Option(help="second index of the same corpus, for a hybrid")
    ] = None,
    k1: Annotated[
        float | None,
        typer.Option(help="BM25 of a Lucene index: how slowly repetitions of a word stop to count"),
    ] = None,
    b: Annotated[
        float | None,
        typer.Option(help="BM25 of a Lucene index: how much long passages are held back"),
    ] = None,
    java_heap: Annotated[
        str | None, typer.Option(help="lucene: largest heap of Java, such as 4g")
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="read the index through and compare its hashes first")
    ] = False,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="file with the key that clients must send; or RETRIEVER_API_KEY"),
    ] = None,
    allow_unauthenticated: Annotated[
        bool, typer.Option(help="listen beyond this machine without a key")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="a name that clients without a key ask by; may be repeated"),
    ] = None,
    log_file: Annotated[Path | None, typer.Option(help="request log; absent: stderr")] = None,
    deadline_s: Annotated[float, typer.Option(help="of one request; later is 504")] = 25.0,
    max_in_flight: Annotated[
        int, typer.Option(help="requests being worked on; more are answered 503")
    ] = 512,
    shards: Annotated[
        int | None, typer.Option(help="search in this many processes, by Ray Serve")
    ] = None,
    shard_cpus: Annotated[
        int | None, typer.Option(help="cores of each shard; absent: an equal share")
    ] = None,
    shard_gpus: Annotated[float | None, typer.Option(help="GPUs of each shard (dense)")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="run the shards on this Ray cluster, such as auto")
    ] = None,
) -> None:
    """Serve indexes over HTTP until Ctrl-C."""
    from retriever_server.flags import named_indexes
    from retriever_server.server import ServerSettings, serve
    from retriever_server.settings import sharding_of

    named = named_indexes(index, qrels or [], encoder or [])
    if not named:
        raise ConfigError('name an index: --index with a folder made by "convsearch index"')
    name, first = next(iter(named.items()))
    del named[name]
    first = replace(first, fuse_with=fuse_with, k1=k1, b=b, java_heap=java_heap, verify=verify)
    settings = ServerSettings(
        **vars(first),
        name=name,
        further={key: replace(one, verify=verify) for key, one in named.items()},
        host=host,
        port=port,
        api_key=read_api_key(api_key_file, API_KEY_VARIABLE),
        allow_unauthenticated=allow_unauthenticated,
        allowed_hosts=tuple(allowed_host or ()),
        log_path=log_file,
        deadline_s=deadline_s,
        max_in_flight=max_in_flight,
        sharding=sharding_of(shards, shard_cpus, shard_gpus, ray_address),
    )
    serve(settings)
