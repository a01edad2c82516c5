"""`convsearch distill`: a model's own best rewrites -> sft_train.parquet, sft_val.parquet."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import options as o
from convsearch.data.dataset import load_dataset
from convsearch.distill import DistillSettings, self_distill
from convsearch.infer.asked import how_to_ask
from convsearch.pipeline.drawing import draw_conversations
from convsearch.pipeline.search import SearchOptions, open_retriever, search_settings
from convsearch.prompts import trained_style


def command(
    dataset: o.DatasetOption,
    out: Annotated[Path, typer.Option(help="Folder to write; made if it is not there.")],
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "train",
    turns: Annotated[
        int, typer.Option(help="About this many, as whole conversations; 0 takes all.", min=0)
    ] = 0,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    prompt: o.PromptOption = None,
    candidates: Annotated[
        int, typer.Option(help="Rewrites drawn for each turn.")
    ] = DistillSettings.candidates,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the drawn rewrites.")
    ] = DistillSettings.temperature,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens that hold this share.")
    ] = DistillSettings.top_p,
    max_tokens: o.MaxTokensOption = None,
    max_rank: Annotated[
        int, typer.Option(help="Keep a rewrite that ranks a gold passage here or better.")
    ] = DistillSettings.max_rank,
    keep_per_turn: Annotated[
        int, typer.Option(help="Rewrites of one turn to keep.")
    ] = DistillSettings.keep_per_turn,
    val_fraction: Annotated[
        float, typer.Option(help="Share of the conversations held out.")
    ] = DistillSettings.val_fraction,
    seed: Annotated[
        int, typer.Option(help="Seed of the drawn rewrites and of the held-out conversations.")
    ] = DistillSettings.seed,
    batch_size: o.BatchOption = None,
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    workers: o.WorkersOption = 1,
    gpus_per_worker: o.GpusOption = 1,
    fresh: o.FreshOption = False,
    retry_failed: o.RetryOption = False,
) -> None:
    """Let a model write rewrites, and keep those that find the right passage."""
    asked = how_to_ask(model, style=prompt, max_tokens=max_tokens)
    settings = DistillSettings(
        style=trained_style(asked.style),
        candidates=candidates,
        temperature=temperature,
        top_p=top_p,
        max_tokens=asked.max_tokens,
        max_rank=max_rank,
        keep_per_turn=keep_per_turn,
        val_fraction=val_fraction,
        batch_size=o.batch_size_of(engine, batch_size, workers),
        seed=seed,
    )
    data = load_dataset(dataset)
    search = SearchOptions(index=index, url=retriever_url, encoder=encoder)
    with (
        open_retriever(**vars(search)) as retriever,
        o.engine_of(
            engine,
            model,
            url=engine_url,
            device=device,
            dtype=dtype,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
        ) as opened,
        o.progress_bar("candidates") as advance,
    ):
        counts = self_distill(
            draw_conversations(data.turns(split), turns, seed=seed),
            data.qrels,
            opened,
            retriever,
            settings,
            out,
            fresh=fresh,
            retry_failed=retry_failed,
            search=search_settings(search, retriever),
            dataset=data.name,
            told=asked.told,
            inputs=[data.turns_path],
            on_progress=advance,
        )
    o.say(f"{out}: {', '.join(f'{name} {count}' for name, count in asdict(counts).items())}")
