"""`convsearch sft`: self-distilled rewrites -> a fine-tuned model."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.steps import train_progress
from convsearch.train.device import Device, Dtype
from convsearch.train.sft import SftSettings, run_sft


def command(
    model: Annotated[Path, typer.Option(help="model to start from, in Hugging Face form")],
    train_file: Annotated[Path, typer.Option(help='sft_train.parquet of "convsearch distill"')],
    out: Annotated[Path, typer.Option(help="folder to make; the result is OUT/model")],
    val_file: Annotated[Path | None, typer.Option(help="for the validation loss")] = None,
    epochs: Annotated[int, typer.Option(help="passes over the file")] = SftSettings.epochs,
    batch: Annotated[int, typer.Option(help="examples in one update")] = SftSettings.batch,
    micro_batch: Annotated[
        int, typer.Option(help="examples in one forward pass of one process")
    ] = SftSettings.micro_batch,
    lr: Annotated[float, typer.Option(help="peak learning rate")] = SftSettings.lr,
    warmup_ratio: Annotated[
        float, typer.Option(help="share of updates in which the rate rises")
    ] = SftSettings.warmup_ratio,
    weight_decay: Annotated[float, typer.Option(help="AdamW's")] = SftSettings.weight_decay,
    max_length: Annotated[
        int, typer.Option(help="tokens of prompt and answer")
    ] = SftSettings.max_length,
    device: Annotated[Device, typer.Option(help="where it runs")] = SftSettings.device,
    nproc: Annotated[
        int | None, typer.Option(help="processes; 8 with cuda and 1 with cpu if not given")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="bfloat16 with cuda and float32 with cpu if not given")
    ] = None,
    threads: Annotated[
        int, typer.Option(help="cpu: threads of each process, 0 for all cores")
    ] = SftSettings.threads,
    time_limit_s: Annotated[
        float, typer.Option(help="the training is stopped after this")
    ] = SftSettings.time_limit_s,
) -> None:
    """Fine-tune a model on its own best rewrites (verl's sft_trainer, FSDP2)."""
    on_cpu = device == "cpu"
    settings = SftSettings(
        model_path=model,
        train_file=train_file,
        val_file=val_file,
        out_dir=out,
        epochs=epochs,
        batch=batch,
        micro_batch=micro_batch,
        lr=lr,
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        max_length=max_length,
        nproc=nproc or (1 if on_cpu else SftSettings.nproc),
        device=device,
        dtype=dtype or ("float32" if on_cpu else SftSettings.dtype),
        threads=threads,
        time_limit_s=time_limit_s,
    )
    with train_progress("sft") as advance:
        target = run_sft(settings, out / "sft.log", advance)
    typer.echo(f"{target}: fine-tuned model; metrics in {out / 'metrics.jsonl'}")
