"""`convsearch agent ablate`: what several queries find, by rules or by a model that words them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from convsearch.agent.ablation import (
    ablate_variants,
    ablation_table,
    equal_documents,
    equal_table,
)
from convsearch.agent.variants import rule_variants
from convsearch.cli import options as o
from convsearch.cli.agent_options import (
    Plots,
    Questions,
    SetName,
    Split,
    TemperatureOption,
    TokensOption,
    numbers,
    say_plots,
)
from convsearch.cli.agent_outputs import claimed
from convsearch.data.questions import load_questions
from convsearch.episodes.variants import model_variants
from convsearch.errors import ConfigError, DataError
from convsearch.files import atomic_write, write_jsonl
from convsearch.infer import SamplingParams
from convsearch.passport import write_passport
from convsearch.pipeline.search import open_retriever
from convsearch.report.agent_charts import write_ablation_charts
from convsearch.retrieval.identity import index_identity

_FILES = ("variants.jsonl", "ablation.json", "equal_documents.json", "ablation.md")


def ablate(
    dataset: Questions,
    out: Annotated[
        Path, typer.Option(help="Folder for ablation.json, equal_documents.json, tables and plots.")
    ],
    split: Split = "dev",
    set_name: SetName = None,
    type_name: Annotated[
        str | None, typer.Option("--type", help="Only this kind of question, such as comparison.")
    ] = None,
    variants: Annotated[str, typer.Option(help="Numbers of queries.")] = "1,2,3,5",
    topk: Annotated[str, typer.Option(help="Passages of each query.")] = "3,5,10",
    top: Annotated[int, typer.Option(help="Depth of the fused list that is scored.")] = 10,
    documents: Annotated[
        str, typer.Option(help="Numbers of documents that every n is given alike.")
    ] = "3,5,10,20",
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    model: o.ModelOption = None,
    engine: o.EngineOption = "openai",
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    temperature: TemperatureOption = 0.0,
    max_tokens: TokensOption = 512,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals and the model.")] = 0,
    plots: Plots = "svg",
    fresh: o.FreshOption = False,
) -> None:
    """Measure what several queries find, in all-gold recall: variants by rules, or by --model."""
    started = time.monotonic()
    if model is None and engine_url is not None:
        raise ConfigError(
            "--engine-url is the address of a model; name it with --model, or leave both out for "
            "variants by rules"
        )
    data = load_questions(dataset)
    chosen = data.questions(split, set_name)
    questions = [q for q in chosen if data.golds(q.qid) and type_name in (None, q.type)]
    if not questions:
        types = ", ".join(sorted({q.type for q in chosen}))
        raise DataError(
            f"{data.questions_path}: no question of type {type_name or 'any'} with a gold passage "
            f"in this split; types here: {types}"
        )
    without_gold = sum(not data.golds(q.qid) for q in chosen if type_name in (None, q.type))
    ns, ks = numbers(variants, "--variants"), numbers(topk, "--topk")
    limits = numbers(documents, "--documents")
    golds = {question.qid: data.golds(question.qid) for question in questions}
    made: dict[str, list[str]] = {}
    identity: Mapping[str, object] | None = None
    if model is not None:
        params = SamplingParams(temperature=temperature, max_tokens=max_tokens)
        with (
            o.engine_of(engine, model, url=engine_url, device=device) as opened,
            o.progress_bar("wording") as advance,
        ):
            identity = dict(opened.identity)
            made = model_variants(
                questions, opened, max(ns), params=params, seed=seed, on_progress=advance
            )
    worded = {q.question: made[q.qid] for q in questions} if made else {}

    def of_model(question: str, num_variants: int) -> list[str]:
        return worded[question][:num_variants]

    chosen_variants = of_model if made else rule_variants
    settings = {
        "split": split, "set": set_name, "type": type_name, "variants": ns, "topk": ks,
        "top": top, "documents": limits, "engine": identity,
        "temperature": temperature if identity else None,
    }  # fmt: skip
    with open_retriever(index=index, url=retriever_url, encoder=encoder) as retriever:
        shaping = {
            **settings, "max_tokens": max_tokens if identity else None, "seed": seed,
            "index": index_identity(retriever, index or retriever_url),
        }  # fmt: skip
        files = {"questions": data.questions_path, "qrels": data.qrels_path}
        output = claimed(out, "agent ablate", shaping, files, results=_FILES, fresh=fresh)
        rows = ablate_variants(
            questions, golds, retriever, ns=ns, ks=ks, top=top, seed=seed, variants=chosen_variants
        )
        equal = equal_documents(
            questions, golds, retriever, ns=ns, documents=limits, seed=seed,
            variants=chosen_variants,
        )  # fmt: skip
    alone = sum(len(chosen_variants(q.question, max(ns))) < 2 for q in questions)
    table, equal_rows = ablation_table(rows, top), equal_table(equal)
    output.begin(fresh=fresh)
    write_jsonl(
        out / "variants.jsonl",
        ({"qid": q.qid, "queries": chosen_variants(q.question, max(ns))} for q in questions),
    )
    _write_rows(out / "ablation.json", [asdict(row) for row in rows])
    _write_rows(out / "equal_documents.json", [asdict(row) for row in equal])
    with atomic_write(out / "ablation.md") as stream:
        stream.write(f"{table}\n\n{equal_rows}\n")
    write_passport(
        out / "run.json",
        stage="agent ablate",
        settings={**settings, "retriever": str(index or retriever_url)},
        inputs=[data.questions_path, data.qrels_path],
        counts={
            "questions": len(questions), "without_gold": without_gold, "without_variants": alone,
        },
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
        made=output.record,
    )  # fmt: skip
    output.end()
    source = f"by {model}" if model is not None else "by rules"
    o.say(
        f"{len(questions)} questions with gold passages; variants {source}, "
        f"none for {alone} of them; {without_gold} without gold passages are left out"
    )
    o.say(f"{table}\n\n{equal_rows}")
    say_plots(plots, lambda kind: write_ablation_charts(out, rows, equal, top=top, form=kind))


def _write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with atomic_write(path) as stream:
        json.dump(rows, stream, indent=2)
        stream.write("\n")
