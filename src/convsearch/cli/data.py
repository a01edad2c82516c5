"""`convsearch data`: makes data set folders, and training prompts from them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import data_published, data_qa
from convsearch.cli.data_published import show
from convsearch.cli.help import Group
from convsearch.data.dataset import load_dataset
from convsearch.data.mini import DEFAULT_SEED, write_mini
from convsearch.data.mini.hop_files import write_hops
from convsearch.data.own import convert_own
from convsearch.data.pooled import convert_pooled
from convsearch.data.pooled_rewrites import write_field_rewrites
from convsearch.data.questions import convert_questions, load_questions
from convsearch.errors import ConfigError
from convsearch.prompts import TrainedStyle

app = typer.Typer(
    cls=Group,
    help="Make a data set folder: turns.jsonl, corpus.jsonl, qrels.trec.",
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Option(help="Folder to write; made if it is not there.")]
app.command()(data_published.topiocqa)
app.command()(data_published.qrecc)
app.command()(data_published.cast)
app.command("qa-sets")(data_qa.qa_sets)
app.command()(data_qa.wiki18)


@app.command()
def mini(
    out: Out,
    seed: Annotated[int, typer.Option(help="Another seed makes another world.")] = DEFAULT_SEED,
) -> None:
    """Generate the embedded data set: a fictional encyclopaedia and conversations about it."""
    show(out, write_mini(out, seed))


@app.command()
def hops(
    out: Out,
    seed: Annotated[int, typer.Option(help="Of the world; the same as in data mini.")] = (
        DEFAULT_SEED
    ),
) -> None:
    """Generate questions that need two passages of the embedded encyclopaedia, for agents."""
    show(out, write_hops(out, seed))


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
    show(out, convert_pooled(source, out, name=name))


@app.command()
def own(
    conversations: Annotated[
        Path, typer.Option(help="JSON lines: id, turns of question, answer, relevant.")
    ],
    corpus: Annotated[Path, typer.Option(help="JSON lines of id, text, title; or a .tsv.")],
    out: Out,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; the output folder's by default.")
    ] = None,
    dev_share: Annotated[
        float, typer.Option(help="Share of the conversations for dev, where none names a split.")
    ] = 0.1,
    test_share: Annotated[
        float, typer.Option(help="Share of the conversations for test, where none names a split.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the draw of the splits.")] = 0,
) -> None:
    """Convert conversations and passages of your own (docs/own-data.md)."""
    counts = convert_own(
        conversations,
        corpus,
        out,
        name=name,
        dev_share=dev_share,
        test_share=test_share,
        seed=seed,
    )
    show(out, counts)


@app.command()
def qa(
    source: Annotated[
        Path, typer.Option(help="Folder with corpus.jsonl and train, dev or test.jsonl (or .gz).")
    ],
    out: Out,
) -> None:
    """Convert questions with answers and gold passages, for search agents."""
    show(out, convert_questions(source, out))


@app.command()
def prompts(
    dataset: Annotated[
        Path, typer.Option(help="Folder with turns.jsonl, corpus.jsonl, qrels.trec.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for convsearch grpo.")],
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "train",
    prompt: Annotated[
        TrainedStyle, typer.Option(help="instruct: chat models. nano: the small policies.")
    ] = "instruct",
    model: Annotated[
        Path | None, typer.Option(help="Model whose tokenizer counts for --max-prompt-length.")
    ] = None,
    max_prompt_length: Annotated[
        int | None,
        typer.Option(help="Most tokens of a prompt; a longer one loses its oldest turns.", min=1),
    ] = None,
) -> None:
    """Write the turns of a split as prompts for GRPO, with their relevant passages."""
    from convsearch.data.parquet import write_grpo_parquet

    if (model is None) != (max_prompt_length is None):
        raise ConfigError("--model and --max-prompt-length go together: one counts for the other")

    data = load_dataset(dataset)
    turns = data.turns(split)
    whole = out if model is None else out.with_name(f".{out.name}.{os.getpid()}.whole")
    try:
        count = write_grpo_parquet(whole, turns, data.qrels, style=prompt, data_source=data.name)
        if model is not None and max_prompt_length is not None:
            from convsearch.train.preflight.shorten import shorten_prompts

            count = shorten_prompts(whole, out, model, max_prompt_length)
    finally:
        if whole != out:
            whole.unlink(missing_ok=True)
    show(out, {"num_prompts": count})


@app.command("agent-prompts")
def agent_prompts(
    dataset: Annotated[Path, typer.Option(help="Question folder, of data hops or data qa.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for search agents in verl.")],
    split: Annotated[str, typer.Option(help="Split whose questions are taken.")] = "train",
    name: Annotated[
        str | None, typer.Option(help="Only this data set of the folder, such as hotpotqa.")
    ] = None,
) -> None:
    """Write the questions of a split for the training of search agents."""
    from convsearch.data.parquet import write_agent_parquet

    data = load_questions(dataset)
    questions = data.questions(split, name)
    count = write_agent_parquet(out, questions, data.qrels)
    show(out, {"num_prompts": count, "without_answers": len(questions) - count})


@app.command()
def rewrites(
    source: Annotated[Path, typer.Option(help="Folder in the pooled format.")],
    out: Annotated[Path, typer.Option(help="rewrites.jsonl to write, for convsearch eval.")],
    name: Annotated[
        str, typer.Option("--field", help="Field of the turns: rewrite, chatgpt_rewrite, ...")
    ] = "rewrite",
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "dev",
) -> None:
    """Take the human or published rewrites of a source, to compare with; not for training."""
    show(out, write_field_rewrites(source, out, name=name, split=split))
