"""The command line of the server: flags in, settings out."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convsearch.errors import ConfigError
from convsearch.listening import read_api_key
from convsearch.named_paths import named_path
from convsearch.retrieval.transport import API_KEY_VARIABLE
from retriever_server.loading import RETRIEVERS
from retriever_server.settings import (
    DEFAULT_DEADLINE_S,
    DEFAULT_HOST,
    DEFAULT_INDEX,
    DEFAULT_MAX_IN_FLIGHT,
    DEFAULT_PORT,
    IndexSettings,
    ServerSettings,
    sharding_of,
)


def parser() -> argparse.ArgumentParser:
    """The flags of the original, and ours."""
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="Serve ranks and passages over HTTP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--index_path", type=Path, help='made by "convsearch index", or a Lucene index')
    add("--trec_path", type=Path, help="qrels of the query ids that clients send")
    add("--retriever_name", choices=RETRIEVERS, help="checked against the index")
    add("--encoder_path", type=Path, help="folder of the query encoder (dense)")
    add("--fuse_with", type=Path, help="second index of the same corpus, for a hybrid")
    add("--k1", type=float, help="BM25 of a Lucene index, chosen when it is opened")
    add("--b", type=float, help="as --k1")
    add("--java_heap", help="largest heap of Java, such as 4g (Lucene)")
    add("--index", action="append", default=[], metavar="NAME=FOLDER",
        help="one of several indexes, for /retrieve?index=NAME; may be repeated")  # fmt: skip
    add("--qrels", action="append", default=[], metavar="NAME=FILE", help="its qrels")
    add("--encoder", action="append", default=[], metavar="NAME=FOLDER", help="its encoder")
    add("--verify", action="store_true",
        help="read the index through and compare its hashes first")  # fmt: skip
    add("--host", default=DEFAULT_HOST, help="address to listen on")
    add("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    add(
        "--api_key_file",
        "--api-key-file",
        type=Path,
        help="file with the key that clients must send",
    )
    add("--allow-unauthenticated", action="store_true",
        help="listen beyond this machine without a key")  # fmt: skip
    add("--allowed_host", "--allowed-host", action="append", default=[], metavar="NAME",
        help="a name that clients without a key ask by; may be repeated")  # fmt: skip
    add("--log_file", dest="log_path", type=Path, help="request log; absent: stderr")
    add("--deadline_s", type=float, default=DEFAULT_DEADLINE_S, help="of one request")
    add("--max_in_flight", type=int, default=DEFAULT_MAX_IN_FLIGHT,
        help="requests being worked on; more are answered 503")  # fmt: skip
    add("--shards", type=int, help="search in this many processes, by Ray Serve")
    add("--shard_cpus", type=int, help="cores of each shard; absent: an equal share")
    add("--shard_gpus", type=float, help="GPUs of each shard (dense)")
    add("--ray_address", help="run the shards on this Ray cluster, such as auto")
    add("--fd", type=int, help=argparse.SUPPRESS)
    add("--parent_pid", type=int, help=argparse.SUPPRESS)
    return parser


def settings_of(options: argparse.Namespace) -> ServerSettings:
    """Raises ConfigError for indexes that do not fit together, and what `read_api_key` raises."""
    named = named_indexes(options.index, options.qrels, options.encoder)
    name = DEFAULT_INDEX
    if options.index_path is not None:
        first = IndexSettings(
            index_path=options.index_path,
            trec_path=options.trec_path,
            retriever_name=options.retriever_name,
            encoder_path=options.encoder_path,
            fuse_with=options.fuse_with,
            k1=options.k1,
            b=options.b,
            java_heap=options.java_heap,
        )
    elif named:
        name, first = next(iter(named.items()))
        del named[name]
    else:
        raise ConfigError("name an index: --index_path FOLDER, or --index NAME=FOLDER for several")
    return ServerSettings(
        **vars(replace(first, verify=options.verify)),
        name=name,
        further={key: replace(one, verify=options.verify) for key, one in named.items()},
        host=options.host,
        port=options.port,
        api_key=read_api_key(options.api_key_file, API_KEY_VARIABLE),
        allow_unauthenticated=options.allow_unauthenticated,
        allowed_hosts=tuple(options.allowed_host),
        log_path=options.log_path,
        deadline_s=options.deadline_s,
        max_in_flight=options.max_in_flight,
        sharding=sharding_of(
            options.shards, options.shard_cpus, options.shard_gpus, options.ray_address
        ),
    )


def named_indexes(
    indexes: Sequence[str], qrels: Sequence[str], encoders: Sequence[str]
) -> dict[str, IndexSettings]:
    """Settings by name, from lists of `NAME=PATH`; a path without a name belongs to `default`.

    Raises ConfigError for a repeated name, and for qrels or an encoder without their index.
    """
    folders = _by_name("index", indexes)
    files, models = _by_name("qrels", qrels), _by_name("encoder", encoders)
    for flag, paths in (("qrels", files), ("encoder", models)):
        for name in paths.keys() - folders.keys():
            raise ConfigError(f"--{flag} {name}={paths[name]}: there is no --index {name}=FOLDER")
    return {
        name: IndexSettings(
            index_path=folder, trec_path=files.get(name), encoder_path=models.get(name)
        )
        for name, folder in folders.items()
    }


def _by_name(flag: str, values: Sequence[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for value in values:
        given, path = named_path(value)
        name = DEFAULT_INDEX if given is None else given
        if not name or not path or name in paths:
            raise ConfigError(f"--{flag} {value}: give each index one path, as NAME=PATH")
        paths[name] = Path(path)
    return paths
