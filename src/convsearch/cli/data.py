"""`convsearch data`: makes data set folders, and training prompts from them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import data_published, data_qa
from convsearch.cli.data_published import Fresh, show
from convsearch.cli.help import Group
from convsearch.cli.made_file import make_file
from convsearch.cli.options import PromptOption
from convsearch.data.dataset import load_dataset
from convsearch.data.mini import DEFAULT_SEED, write_mini
from convsearch.data.mini.hop_files import write_hops
from convsearch.data.own import convert_own
from convsearch.data.pooled import convert_pooled
from convsearch.data.pooled_rewrites import turns_file, write_field_rewrites
from convsearch.data.questions import convert_questions, load_questions
from convsearch.errors import ConfigError
from convsearch.infer.asked import how_to_ask
from convsearch.prompts import trained_style
from convsearch.train.checkpoint import require_model

app = typer.Typer(
    cls=Group,
    help="Make a data set folder: turns.jsonl, corpus.jsonl, qrels.trec.",
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Option(help="Folder to write; made if it is not there.")]
app.command()(data_published.topiocqa)
app.command("topiocqa-pages")(data_published.topiocqa_pages)
app.command()(data_published.qrecc)
app.command()(data_published.cast)
app.command()(data_published.mtrag)
app.command("qa-sets")(data_qa.qa_sets)
app.command()(data_qa.wiki18)


@app.command()
def mini(
    out: Out,
    seed: Annotated[int, typer.Option(help="Another seed makes another world.")] = DEFAULT_SEED,
    fresh: Fresh = False,
) -> None:
    """Generate the embedded data set: a fictional encyclopaedia and conversations about it."""
    show(out, write_mini(out, seed, fresh=fresh))


@app.command()
def hops(
    out: Out,
    seed: Annotated[int, typer.Option(help="Of the world; the same as in data mini.")] = (
        DEFAULT_SEED
    ),
    fresh: Fresh = False,
) -> None:
    """Generate questions that need two passages of the embedded encyclopaedia, for agents."""
    show(out, write_hops(out, seed, fresh=fresh))


@app.command()
def pooled(
    source: Annotated[
        Path, typer.Option(help="Folder with corpus.jsonl and train, dev or test.jsonl (or .gz).")
    ],
    out: Out,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; the source folder's by default.")
    ] = None,
    fresh: Fresh = False,
) -> None:
    """Convert a folder in the pooled format (README of the real data)."""
    show(out, convert_pooled(source, out, name=name, fresh=fresh))


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
    test_share: Annotated[
        float, typer.Option(help="Share of the conversations for test, where none names a split.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the draw of the splits.")] = 0,
    fresh: Fresh = False,
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
        fresh=fresh,
    )
    show(out, counts)


@app.command()
def qa(
    source: Annotated[
        Path, typer.Option(help="Folder with corpus.jsonl and train, dev or test.jsonl (or .gz).")
    ],
    out: Out,
    fresh: Fresh = False,
) -> None:
    """Convert questions with answers and gold passages, for search agents."""
    show(out, convert_questions(source, out, fresh=fresh))


@app.command()
def prompts(
    dataset: Annotated[
        Path, typer.Option(help="Folder with turns.jsonl, corpus.jsonl, qrels.trec.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for convsearch grpo.")],
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "train",
    prompt: PromptOption = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model that will be trained: its folder says the style, and its tokenizer counts "
            "for --max-prompt-length."
        ),
    ] = None,
    max_prompt_length: Annotated[
        int | None,
        typer.Option(help="Most tokens of a prompt; a longer one loses its oldest turns.", min=1),
    ] = None,
    fresh: Fresh = False,
) -> None:
    """Write the turns of a split as prompts for GRPO, with their relevant passages."""
    from convsearch.data.parquet import write_grpo_parquet

    if max_prompt_length is not None and model is None:
        raise ConfigError("--max-prompt-length needs --model, whose tokenizer counts")
    named = require_model(model) if model else None
    style = trained_style(how_to_ask(str(named) if named else None, style=prompt).style)
    data = load_dataset(dataset)

    def write() -> dict[str, int]:
        turns = data.turns(split)
        if named is None or max_prompt_length is None:
            count = write_grpo_parquet(out, turns, data.qrels, style=style, data_source=data.name)
            return {"num_prompts": count}
        from convsearch.train.preflight.shorten import shorten_prompts

        whole = out.with_name(f".{out.name}.{os.getpid()}.whole")
        try:
            write_grpo_parquet(whole, turns, data.qrels, style=style, data_source=data.name)
            return {"num_prompts": shorten_prompts(whole, out, named, max_prompt_length)}
        finally:
            whole.unlink(missing_ok=True)

    inputs = {"turns": data.turns_path, "qrels": data.qrels_path}
    if named is not None and max_prompt_length is not None:
        inputs["model"] = named
    counts = make_file(
        out,
        write,
        command="data prompts",
        settings={
            "dataset": data.name,
            "split": split,
            "prompt": style,
            "max_prompt_length": max_prompt_length,
        },
        inputs=inputs,
        fresh=fresh,
    )
    show(out, counts)


@app.command("agent-prompts")
def agent_prompts(
    dataset: Annotated[Path, typer.Option(help="Question folder, of data hops or data qa.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for search agents in verl.")],
    split: Annotated[str, typer.Option(help="Split whose questions are taken.")] = "train",
    name: Annotated[
        str | None, typer.Option(help="Only this data set of the folder, such as hotpotqa.")
    ] = None,
    fresh: Fresh = False,
) -> None:
    """Write the questions of a split for the training of search agents."""
    from convsearch.data.parquet import write_agent_parquet

    data = load_questions(dataset)

    def write() -> dict[str, int]:
        questions = data.questions(split, name)
        count = write_agent_parquet(out, questions, data.qrels)
        return {"num_prompts": count, "without_answers": len(questions) - count}

    counts = make_file(
        out,
        write,
        command="data agent-prompts",
        settings={"split": split, "name": name},
        inputs={"questions": data.questions_path, "qrels": data.qrels_path},
        fresh=fresh,
    )
    show(out, counts)


@app.command()
def rewrites(
    source: Annotated[Path, typer.Option(help="Folder in the pooled format.")],
    out: Annotated[Path, typer.Option(help="rewrites.jsonl to write, for convsearch eval.")],
    name: Annotated[
        str, typer.Option("--field", help="Field of the turns: rewrite, chatgpt_rewrite, ...")
    ] = "rewrite",
    split: Annotated[str, typer.Option(help="Split whose turns are taken.")] = "dev",
    fresh: Fresh = False,
) -> None:
    """Take the human or published rewrites of a source, to compare with; not for training."""
    counts = make_file(
        out,
        lambda: write_field_rewrites(source, out, name=name, split=split),
        command="data rewrites",
        settings={"field": name, "split": split},
        inputs={"turns": turns_file(source, split)},
        fresh=fresh,
    )
    show(out, counts)
