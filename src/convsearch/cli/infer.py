"""`convsearch infer`: a model and turns -> rewrites.jsonl."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import options as o
from convsearch.data.dataset import load_dataset
from convsearch.infer import SamplingParams, infer_rewrites
from convsearch.infer.runner import count_statuses


def command(
    dataset: o.DatasetOption,
    out: Annotated[
        Path, typer.Option(help="rewrites.jsonl to write; its passport lies beside it.")
    ],
    split: Annotated[str, typer.Option(help="Which turns.")] = "test",
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    prompt: o.PromptOption = "instruct",
    temperature: Annotated[float, typer.Option(help="0 is greedy; the paper takes 0.7.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Share of the probability to draw from.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest response.")] = 1024,
    seed: Annotated[int, typer.Option(help="Same seed, same rewrites.")] = 0,
    candidates: Annotated[int, typer.Option(help="Rewrites of each turn.", min=1)] = 1,
    shots: Annotated[int, typer.Option(help="Worked examples in the prompt: 0 or 1.")] = 0,
    batch_size: o.BatchOption = None,
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    workers: o.WorkersOption = 1,
    gpus_per_worker: o.GpusOption = 1,
    fresh: o.FreshOption = False,
    retry_failed: o.RetryOption = False,
) -> None:
    """Rewrite every question of a split; an interrupted run goes on where it stopped."""
    data = load_dataset(dataset)
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    with (
        o.engine_of(
            engine,
            model,
            url=engine_url,
            device=device,
            dtype=dtype,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
        ) as opened,
        o.progress_bar("rewriting") as advance,
    ):
        rewrites = infer_rewrites(
            data.turns(split),
            opened,
            out_path=out,
            style=prompt,
            shots=shots,
            params=params,
            seed=seed,
            candidates=candidates,
            batch_size=o.batch_size_of(engine, batch_size),
            fresh=fresh,
            retry_failed=retry_failed,
            inputs=[data.turns_path],
            on_progress=advance,
        )
    counts = ", ".join(f"{name} {count}" for name, count in count_statuses(rewrites).items())
    o.say(f"{out}: {counts}")
