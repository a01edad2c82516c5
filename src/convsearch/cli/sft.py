"""`convsearch sft`: self-distilled rewrites -> a fine-tuned model."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import options as o
from convsearch.cli.steps import say_device, train_progress
from convsearch.train.device import DeviceChoice, Dtype
from convsearch.train.preflight.machine import choose_device
from convsearch.train.sft import SftSettings, run_sft

HEADINGS = {
    "What is trained": ("model", "train_file", "val_file", "out"),
    "Steps and batches": ("epochs", "batch", "micro_batch", "max_length"),
    "Learning": ("lr", "warmup_ratio", "weight_decay"),
    "Machine": ("device", "nproc", "dtype", "threads", "time_limit_s"),
}


def command(
    model: Annotated[Path, typer.Option(help="model to start from, in Hugging Face form")],
    train_file: Annotated[Path, typer.Option(help='sft_train.parquet of "convsearch distill"')],
    out: Annotated[Path, typer.Option(help="folder to make; the result is OUT/model")],
    val_file: Annotated[
        Path | None,
        typer.Option(help="Parquet like --train-file; its loss is computed after each epoch"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="passes over the file")] = SftSettings.epochs,
    batch: Annotated[int, typer.Option(help="examples in one update")] = SftSettings.batch,
    micro_batch: Annotated[
        int, typer.Option(help="examples in one forward pass of one process")
    ] = SftSettings.micro_batch,
    lr: Annotated[float, typer.Option(help="peak learning rate of AdamW")] = SftSettings.lr,
    warmup_ratio: Annotated[
        float, typer.Option(help="share of updates in which the rate rises")
    ] = SftSettings.warmup_ratio,
    weight_decay: Annotated[
        float, typer.Option(help="share by which AdamW shrinks the weights")
    ] = SftSettings.weight_decay,
    max_length: Annotated[
        int,
        typer.Option(help="most tokens of prompt and answer; a longer one loses its oldest turns"),
    ] = SftSettings.max_length,
    device: Annotated[
        DeviceChoice, typer.Option(help="auto: GPUs where there are --nproc of them, else cpu")
    ] = "auto",
    nproc: Annotated[
        int | None,
        typer.Option(
            help="processes, one a GPU; not given: 8 with cuda, all GPUs with auto, 1 with cpu"
        ),
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
    fresh: o.FreshOption = False,
) -> None:
    """Fine-tune a model on its own best rewrites (verl's sft_trainer, FSDP2)."""
    chosen = choose_device(device, nproc, "--nproc")
    say_device(chosen)
    on_cpu = chosen.device == "cpu"
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
        nproc=chosen.processes,
        device=chosen.device,
        dtype=dtype or ("float32" if on_cpu else SftSettings.dtype),
        threads=threads,
        time_limit_s=time_limit_s,
    )
    with train_progress("sft") as advance:
        target = run_sft(settings, out / "sft.log", advance, fresh=fresh)
    typer.echo(f"{target}: fine-tuned model; metrics in {out / 'metrics.jsonl'}")
