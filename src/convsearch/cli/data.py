"""`convsearch data`: makes data set folders, and training prompts from them."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.data.dataset import load_dataset
from convsearch.data.mini import DEFAULT_SEED, write_mini
from convsearch.data.pooled import convert_pooled
from convsearch.prompts import TrainedStyle

app = typer.Typer(
    help="Make a data set folder: turns.jsonl, corpus.jsonl, qrels.trec.", no_args_is_help=True
)

Out = Annotated[Path, typer.Option(help="Folder to write.")]


@app.command()
def mini(
    out: Out,
    seed: Annotated[int, typer.Option(help="Another seed makes another world.")] = DEFAULT_SEED,
) -> None:
    """Generate the embedded data set: a fictional encyclopaedia and conversations about it."""
    _show(out, write_mini(out, seed))


@app.command()
def pooled(
    source: Annotated[
        Path, typer.Option(help="Folder with corpus.jsonl and train, dev or test.jsonl (or .gz).")
    ],
    out: Out,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; the source folder's by default.")
    ] = None,
) -> None:
    """Convert a folder in the pooled format (README of the real data)."""
    _show(out, convert_pooled(source, out, name=name))


@app.command()
def prompts(
    dataset: Annotated[Path, typer.Option(help="Folder of a data set.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for convsearch grpo.")],
    split: Annotated[str, typer.Option(help="Which turns.")] = "train",
    prompt: Annotated[
        TrainedStyle, typer.Option(help="instruct: chat models. nano: the small policies.")
    ] = "instruct",
) -> None:
    """Write the turns of a split as prompts for GRPO, with their relevant passages."""
    from convsearch.data.parquet import write_grpo_parquet

    data = load_dataset(dataset)
    turns = data.turns(split)
    count = write_grpo_parquet(out, turns, data.qrels, style=prompt, data_source=data.name)
    _show(out, {"num_prompts": count})


def _show(out: Path, counts: dict[str, int]) -> None:
    print(f"wrote {out}")
    for key, count in counts.items():
        print(f"{key:24s} {count:>9,}")
