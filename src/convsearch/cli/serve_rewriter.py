"""`convsearch serve-rewriter`: a checkpoint -> a service in the foreground."""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from convsearch.cli import options as o
from convsearch.cli.infer import PromptFileOption, PromptOption, ShotsOption
from convsearch.infer import SamplingParams
from convsearch.infer.asked import how_to_ask
from convsearch.infer.checkpoint import model_name
from convsearch.listening import check_exposure, listen, read_api_key
from convsearch.prompts import read_template


def command(
    model: o.ModelOption = None,
    engine: Annotated[
        Literal["transformers", "vllm", "echo"],
        typer.Option("--engine", help="What runs the model; echo needs none."),
    ] = "transformers",
    served_name: Annotated[
        str | None,
        typer.Option(help="Name that clients ask for; absent: the folder's, or what it is of."),
    ] = None,
    prompt: PromptOption = None,
    prompt_file: PromptFileOption = None,
    shots: ShotsOption = 0,
    temperature: Annotated[
        float, typer.Option(help="Temperature, where a request names none.")
    ] = 0.7,
    top_p: Annotated[
        float, typer.Option(help="Share of the likeliest tokens, where a request names none.")
    ] = 1.0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of a response, where a request names none; absent: what the model's "
            "folder says, else 1024.",
            min=1,
        ),
    ] = None,
    max_tokens_limit: Annotated[int, typer.Option(help="Most that a request may name.")] = 4096,
    max_batch: Annotated[int, typer.Option(help="Responses generated together.")] = 64,
    max_in_flight: Annotated[int, typer.Option(help="Requests; more are answered 503.")] = 256,
    deadline_s: Annotated[float, typer.Option(help="Of one request; later is 504.")] = 120.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8001,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key that clients must send; or REWRITER_API_KEY."),
    ] = None,
    allow_unauthenticated: Annotated[
        bool, typer.Option(help="Listen beyond this machine without a key.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name that clients without a key ask by; may be repeated."),
    ] = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    workers: o.WorkersOption = 1,
    gpus_per_worker: o.GpusOption = 1,
) -> None:
    """Serve a rewriter over HTTP until Ctrl-C: /rewrite and /v1/chat/completions."""
    from convsearch.infer.prompt_reader import load_prompt_reader
    from convsearch.serving.naming import served_name as name_of
    from convsearch.serving.server import serve
    from convsearch.serving.settings import API_KEY_VARIABLE, ServingSettings

    template = read_template(prompt_file) if prompt_file else None
    asked = how_to_ask(model, style=prompt, max_tokens=max_tokens, prompt_file=template)
    settings = ServingSettings(
        model=served_name or (name_of(model, asked.told) if model else engine),
        also=None if served_name or model is None else model_name(model),
        style=asked.style,
        shots=shots,
        template=template,
        told=asked.told,
        defaults=SamplingParams(temperature=temperature, top_p=top_p, max_tokens=asked.max_tokens),
        max_tokens_limit=max(max_tokens_limit, 0 if max_tokens else asked.max_tokens),
        max_batch=max_batch,
        max_in_flight=max_in_flight,
        deadline_s=deadline_s,
        allowed_hosts=(host, *(allowed_host or ())),
        api_key=read_api_key(api_key_file, API_KEY_VARIABLE),
    )
    check_exposure(
        host,
        has_key=settings.api_key is not None,
        allowed=allow_unauthenticated,
        key_variable=API_KEY_VARIABLE,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # while the model is loading
    still_generating = False
    with (
        contextlib.suppress(KeyboardInterrupt),
        listen(host, port) as listener,
        o.engine_of(
            engine,
            model,
            device=device,
            dtype=dtype,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
        ) as opened,
    ):
        reader = None  # of an engine in this process: its own
        if workers > 1 and engine != "echo" and model is not None:
            reader = load_prompt_reader(model)
        still_generating = serve(opened, settings, listener, _announce, reader)
    if still_generating:  # in a thread that no signal reaches
        os._exit(0)


def _announce(url: str) -> None:
    print(f"ready: {url}", file=sys.stderr, flush=True)
