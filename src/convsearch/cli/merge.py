"""`convsearch merge`: a checkpoint of a training -> a model folder in Hugging Face form."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[
        Path, typer.Option(help="folder of a run (its last step), global_step_<n>, or an adapter")
    ],
    out: Annotated[Path, typer.Option(help="model folder to make; must not exist yet")],
    base: Annotated[
        Path | None, typer.Option(help="the model an adapter belongs to, where it is not told")
    ] = None,
) -> None:
    """Join verl's shards or a LoRA adapter into a model, and try it out.

    Shards are pickles; what is no weight in them is refused, so that reading them runs no code.
    """
    from convsearch.train.merge import merge_checkpoint

    merged = merge_checkpoint(checkpoint, out, base=base)
    what = "adapter and model" if merged.was_adapter else "model"
    shards = f"{merged.source.world_size} shards" if merged.source.kind == "shards" else "a folder"
    typer.echo(
        f"{out}: {what} from {shards}, {merged.tried.num_parameters:,} weights in "
        f"{merged.tried.dtype}"
    )
    typer.echo(f"it writes: {merged.tried.text!r}")
