"""Options that several commands share, and what they have in common around an engine."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from convsearch.errors import ConfigError
from convsearch.infer import DEFAULT_BATCH_SIZES, POOL_BATCH_SIZES, Engine, open_engine
from convsearch.infer.checkpoint import check_model
from convsearch.prompts import TrainedStyle
from convsearch.visible import visible

EngineName = Literal["transformers", "vllm", "openai", "echo"]

DatasetOption = Annotated[
    Path, typer.Option("--dataset", help="Folder with turns.jsonl, corpus.jsonl, qrels.trec.")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Checkpoint folder, hub name, or the endpoint's model name."),
]
EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="What runs the model; echo needs none.")
]
EngineUrlOption = Annotated[
    str | None,
    typer.Option("--engine-url", help="openai: address of the endpoint; key in OPENAI_API_KEY."),
]
EngineIdsOption = Annotated[
    bool,
    typer.Option("--engine-ids", help="openai: ask for token ids, which vLLM's server gives."),
]
PromptOption = Annotated[
    TrainedStyle | None,
    typer.Option(
        "--prompt",
        help="instruct: chat models. nano: the project's small policies. Absent: what the model's "
        "folder says, else instruct.",
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        help="Longest response; absent: what the model's folder says, else 1024.",
        min=1,
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="transformers: auto, cpu, cuda, ...")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, float16.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", help="Copies of the model, each in a process of its own.", min=1)
]
GpusOption = Annotated[
    int, typer.Option("--gpus-per-worker", help="GPUs that share one copy (vllm).", min=1)
]
RestartsOption = Annotated[
    int,
    typer.Option("--max-restarts", help="Engines that may be opened again after a crash.", min=0),
]
BlockDeadlineOption = Annotated[
    float,
    typer.Option(
        "--block-deadline-s", help="Several workers: one that takes longer over a block is ended."
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch-size", help="Prompts of one block; a resumed run must keep it.", min=1),
]
IndexOption = Annotated[
    Path | None, typer.Option("--index", help='Folder made by "convsearch index".')
]
UrlOption = Annotated[
    str | None, typer.Option("--retriever-url", help="Address of a retrieval server instead.")
]
EncoderOption = Annotated[
    Path | None, typer.Option("--encoder", help="Folder of a dense index's query encoder.")
]
FuseOption = Annotated[
    Path | None,
    typer.Option("--fuse-with", help="Second index of the same corpus, fused by reciprocal ranks."),
]
K1Option = Annotated[
    float | None, typer.Option("--k1", help="BM25 of a Lucene index; its own by default.")
]
BOption = Annotated[
    float | None,
    typer.Option("--b", help="BM25 of a Lucene index: how much long passages are held back."),
]
QueryTokensOption = Annotated[
    int | None,
    typer.Option("--max-query-tokens", help="Dense: tokens read of a query; its own, 64, if none."),
]
ConcatTokensOption = Annotated[
    int, typer.Option("--max-concat-tokens", help="Dense: tokens read of a concatenation.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over instead of going on with what is there.")
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Ask again where a former run got no response.")
]


@contextmanager
def engine_of(
    name: str,
    model: str | None,
    *,
    url: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    workers: int = 1,
    gpus_per_worker: int = 1,
    max_restarts: int = 32,
    block_deadline_s: float = 3600.0,
    tells_ids: bool = False,
) -> Iterator[Engine]:
    """Opens the engine that the options name, or several of it, and closes it."""
    if name == "transformers" and model is not None:
        check_model(model)
        _quiet_transformers()
    if workers < 1 or gpus_per_worker < 1:
        raise ConfigError(
            f"workers and GPUs of a worker must be 1 or more, got {workers} and {gpus_per_worker}"
        )
    if workers > 1:
        if name == "openai":
            raise ConfigError(
                "engine 'openai' sends its requests from one process; leave --workers at 1"
            )
        from convsearch.infer.pool import EnginePool, PoolSettings

        engine: Engine = EnginePool(
            functools.partial(
                open_engine,
                name,
                model,
                device=device,
                dtype=dtype,
                tensor_parallel_size=gpus_per_worker,
            ),
            PoolSettings(
                workers=workers,
                gpus_per_worker=gpus_per_worker,
                uses_gpus=name != "echo" and device != "cpu",
                max_restarts=max_restarts,
                deadline_s=block_deadline_s,
            ),
        )
    else:
        engine = open_engine(
            name,
            model,
            url=url,
            device=device,
            dtype=dtype,
            tensor_parallel_size=gpus_per_worker,
            tells_ids=tells_ids,
        )
    try:
        yield engine
    finally:
        engine.close()


def batch_size_of(engine: str, wanted: int | None, workers: int = 1) -> int:
    """The block size asked for, or the engine's usual one."""
    return wanted or (POOL_BATCH_SIZES if workers > 1 else DEFAULT_BATCH_SIZES)[engine]


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, and the function that moves it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(line: str) -> None:
    """One line of the result, on stdout, before what a program started next may print; control
    characters of names and texts in it are not obeyed."""
    print(visible(line), file=sys.stdout, flush=True)


def _quiet_transformers() -> None:
    """No bars for the loading of weights; other messages stay."""
    try:
        from transformers.utils import logging
    except ImportError:  # the engine says what to install
        return
    logging.disable_progress_bar()
