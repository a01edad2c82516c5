"""`convsearch infer`: a model and turns -> rewrites.jsonl."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import options as o
from convsearch.cli.infer_run import EngineFlags, run_inference
from convsearch.data.dataset import load_dataset
from convsearch.infer import Plan, SamplingParams
from convsearch.infer.asked import how_to_ask
from convsearch.prompts import PromptStyle, read_template

PromptOption = Annotated[
    PromptStyle | None,
    typer.Option(
        "--prompt",
        help="What is asked, and how the answer is read (docs/inference.md); absent: what the "
        "model's folder says, else instruct.",
    ),
]
PromptFileOption = Annotated[
    Path | None,
    typer.Option(
        "--prompt-file",
        help="Your own prompt, with {conversation} and {question}; --prompt reads the answer.",
    ),
]
ShotsOption = Annotated[
    int, typer.Option("--shots", help="Worked examples: instruct 0 or 1; plain, cot 0 to 3.")
]


def command(
    dataset: o.DatasetOption,
    out: Annotated[
        Path, typer.Option(help="rewrites.jsonl to write; its passport lies beside it.")
    ],
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "test",
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    prompt: PromptOption = None,
    prompt_file: PromptFileOption = None,
    shots: ShotsOption = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy; the paper takes 0.7.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Share of the probability to draw from.")] = 1.0,
    max_tokens: o.MaxTokensOption = None,
    seed: Annotated[int, typer.Option(help="Same seed, same rewrites.")] = 0,
    candidates: Annotated[int, typer.Option(help="Rewrites of each turn.", min=1)] = 1,
    batch_size: o.BatchOption = None,
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    workers: o.WorkersOption = 1,
    gpus_per_worker: o.GpusOption = 1,
    max_restarts: o.RestartsOption = 32,
    block_deadline_s: o.BlockDeadlineOption = 3600.0,
    fresh: o.FreshOption = False,
    retry_failed: o.RetryOption = False,
) -> None:
    """Rewrite every question of a split; an interrupted run goes on where it stopped."""
    data = load_dataset(dataset)
    template = read_template(prompt_file) if prompt_file else None
    asked = how_to_ask(model, style=prompt, max_tokens=max_tokens, prompt_file=template)
    plan = Plan(
        turns=data.turns(split),
        style=asked.style,
        params=SamplingParams(temperature=temperature, top_p=top_p, max_tokens=asked.max_tokens),
        seed=seed,
        shots=shots,
        candidates=candidates,
        template=template,
        told=asked.told,
    )
    flags = EngineFlags(
        name=engine,
        model=model,
        url=engine_url,
        device=device,
        dtype=dtype,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        max_restarts=max_restarts,
        block_deadline_s=block_deadline_s,
    )
    run_inference(
        plan,
        flags,
        out=out,
        batch_size=batch_size,
        fresh=fresh,
        retry_failed=retry_failed,
        inputs=[data.turns_path, *asked.files],
    )
