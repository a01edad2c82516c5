"""`convsearch data`: makes data set folders, and training prompts from them."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import data_published, data_qa
from convsearch.cli.data_published import show
from convsearch.data.dataset import load_dataset
from convsearch.data.mini import DEFAULT_SEED, write_mini
from convsearch.data.mini.hop_files import write_hops
from convsearch.data.own import convert_own
from convsearch.data.pooled import convert_pooled
from convsearch.data.pooled_rewrites import write_field_rewrites
from convsearch.data.questions import convert_questions, load_questions
from convsearch.prompts import TrainedStyle

app = typer.Typer(
    help="Make a data set folder: turns.jsonl, corpus.jsonl, qrels.trec.", no_args_is_help=True
)

Out = Annotated[Path, typer.Option(help="Folder to write.")]
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
        Path, typer.Option(help="JSON lines, chat log or .csv; forms: docs/own-data.md.")
    ],
    corpus: Annotated[Path, typer.Option(help="JSON lines of id, text, title; a .csv or .tsv.")],
    out: Out,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; the output folder's by default.")
    ] = None,
    dev_share: Annotated[
        float, typer.Option(help="Share of the conversations for dev, where none names a split.")
    ] = 0.1,
    test_share: Annotated[float, typer.Option(help="The same for test.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the draw of splits.")] = 0,
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
    show(out, {"num_prompts": count})


@app.command("agent-prompts")
def agent_prompts(
    dataset: Annotated[Path, typer.Option(help="Question folder, of data hops or data qa.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for search agents in verl.")],
    split: Annotated[str, typer.Option(help="Which questions.")] = "train",
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
    split: Annotated[str, typer.Option(help="Which turns.")] = "dev",
) -> None:
    """Take the human or published rewrites of a source, to compare with; not for training."""
    show(out, write_field_rewrites(source, out, name=name, split=split))
