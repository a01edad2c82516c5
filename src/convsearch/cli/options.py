"""Options that several commands share, and what they have in common around an engine."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from convsearch.errors import ConfigError
from convsearch.infer import DEFAULT_BATCH_SIZES, Engine, open_engine
from convsearch.infer.checkpoint import check_model

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
PromptOption = Annotated[
    Literal["instruct", "nano"],
    typer.Option("--prompt", help="instruct: chat models. nano: the project's small policies."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="transformers: auto, cpu, cuda, ...")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, float16.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", help="Copies of the model, each in a process of its own.", min=1)
]
GpusOption = Annotated[
    int, typer.Option("--gpus-per-worker", help="GPUs that share one copy (vllm).", min=1)
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
BOption = Annotated[float | None, typer.Option("--b", help="As --k1.")]
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
) -> Iterator[Engine]:
    """Opens the engine that the options name, and closes it."""
    if name == "transformers" and model is not None:
        check_model(model)
        _quiet_transformers()
    if workers > 1:
        if name not in ("transformers", "vllm"):
            raise ConfigError(f"engine {name!r} runs in one process; leave --workers at 1")
        from convsearch.infer.parallel_engine import ParallelEngine, WorkerSettings

        engine: Engine = ParallelEngine(
            workers,
            WorkerSettings(
                name=name, model=model, device=device, dtype=dtype, gpus=gpus_per_worker
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
        )
    try:
        yield engine
    finally:
        engine.close()


def batch_size_of(engine: str, wanted: int | None) -> int:
    """The block size asked for, or the engine's usual one."""
    return wanted or DEFAULT_BATCH_SIZES[engine]


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, and the function that moves it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(line: str) -> None:
    """One line of the result, on stdout."""
    print(line, file=sys.stdout)


def _quiet_transformers() -> None:
    """No bars for the loading of weights; other messages stay."""
    try:
        from transformers.utils import logging
    except ImportError:  # the engine says what to install
        return
    logging.disable_progress_bar()
