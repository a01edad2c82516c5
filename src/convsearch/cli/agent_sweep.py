"""`convsearch agent sweep`: the ablation n x k x squeezer with a model, resumable by cell."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from convsearch.agent import strategy, tool_format
from convsearch.agent.model_squeezer import SqueezeBudget
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.cli import options as o
from convsearch.cli.agent_options import (
    DocumentsOption,
    FormatOption,
    Plots,
    Price,
    Questions,
    ResultOption,
    SeedOption,
    SetName,
    Split,
    SqueezerCache,
    SqueezerModel,
    SqueezerTokens,
    SqueezerUrl,
    TemperatureOption,
    TokensOption,
    TurnsOption,
    numbers,
    say_plots,
)
from convsearch.cli.agent_outputs import SCORES, claimed
from convsearch.cli.agent_squeezer import SqueezerOptions, open_squeezer, refuse_unused
from convsearch.data.questions import load_questions
from convsearch.episodes import AgentRun, infer_episodes
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.evaluation import (
    RunScore,
    equal_budget,
    read_passport,
    score_run,
    write_scores,
)
from convsearch.episodes.latency import read_seconds
from convsearch.episodes.sweep import Cell, sweep_cells, sweep_curves, sweep_table
from convsearch.files import atomic_write
from convsearch.infer import SamplingParams
from convsearch.infer.journal import passport_path
from convsearch.pipeline.search import open_retriever
from convsearch.report.agent_charts import write_score_charts, write_sweep_charts
from convsearch.retrieval.identity import index_identity

STAGE = "agent sweep"


def sweep(
    dataset: Questions,
    out: Annotated[Path, typer.Option(help="Folder: cells/ with episodes, scores, table, plots.")],
    split: Split = "dev",
    set_name: SetName = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    variants: Annotated[str, typer.Option(help="Queries of one call.")] = "1,2,3,5",
    topk: Annotated[str, typer.Option(help="Passages of each query.")] = "3,5,10",
    squeezers: Annotated[
        str, typer.Option(help="With commas: none, extractive, llm, hf.")
    ] = "none,extractive",
    form: FormatOption = "plain",
    max_turns: TurnsOption = 4,
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
    temperature: TemperatureOption = 0.0,
    max_tokens: TokensOption = 512,
    seed: SeedOption = 0,
    batch_size: o.BatchOption = None,
    index: o.IndexOption = None,
    retriever_url: o.UrlOption = None,
    encoder: o.EncoderOption = None,
    max_documents: DocumentsOption = None,
    max_result_tokens: ResultOption = 1024,
    squeezer_model: SqueezerModel = None,
    squeezer_url: SqueezerUrl = None,
    squeezer_cache: SqueezerCache = None,
    squeezer_max_tokens: SqueezerTokens = None,
    usd_per_million_input: Price = 0.0,
    usd_per_million_output: Price = 0.0,
    retry_failed: o.RetryOption = False,
    plots: Plots = "svg",
    fresh: o.FreshOption = False,
) -> None:
    """Run expand_search for every n, k and squeezer; cells that are finished are not run again."""
    ns, ks = numbers(variants, "--variants"), numbers(topk, "--topk")
    cells = sweep_cells(ns, ks, [name.strip() for name in squeezers.split(",")])
    asked = SqueezerOptions(
        kind="llm",
        model=squeezer_model,
        url=squeezer_url,
        cache=squeezer_cache,
        device=device,
        budget=SqueezeBudget(
            max_total_tokens=squeezer_max_tokens,
            usd_per_million_input=usd_per_million_input,
            usd_per_million_output=usd_per_million_output,
        ),
    )
    refuse_unused(list(dict.fromkeys(cell.squeezer for cell in cells)), asked)
    data = load_questions(dataset)
    questions = data.questions(split, set_name)[:limit]
    golds = {question.qid: data.golds(question.qid) for question in questions}
    scored: dict[Cell, RunScore] = {}
    paths = []
    with (
        o.engine_of(engine, model, url=engine_url, device=device, dtype=dtype) as opened,
        open_retriever(index=index, url=retriever_url, encoder=encoder) as retriever,
    ):
        settings = {"split": split, "set": set_name, "limit": limit}
        output = claimed(
            out,
            STAGE,
            {
                **settings, "form": form, "max_turns": max_turns, "temperature": temperature,
                "max_tokens": max_tokens, "seed": seed, "max_documents": max_documents,
                "max_result_tokens": max_result_tokens, "squeezer_model": squeezer_model,
                "engine": dict(opened.identity),
                "index": index_identity(retriever, index or retriever_url),
            },
            {"questions": data.questions_path, "qrels": data.qrels_path},
            results=(*SCORES, "sweep.md"),
            fresh=fresh,
        )  # fmt: skip
        settings["cells"] = [c.name for c in cells]  # another call may add some
        for number, cell in enumerate(cells, 1):
            run = AgentRun(
                strategy=strategy("expand_search", num_variants=cell.n, max_turns=max_turns),
                form=tool_format(form),
                params=SamplingParams(temperature=temperature, max_tokens=max_tokens),
                seed=seed,
                batch_size=o.batch_size_of(engine, batch_size),
                labels={"retriever": str(index or retriever_url or "none")},
            )
            search = SearchSettings(
                topk=cell.k, max_documents=max_documents, max_result_tokens=max_result_tokens
            )
            chosen = {
                "llm": asked,
                "hf": replace(asked, kind="hf", url=None),
            }.get(cell.squeezer, SqueezerOptions(kind=cell.squeezer))
            path = out / "cells" / f"{cell.name}.jsonl"
            with (
                open_squeezer(chosen, search, opened, run.strategy, len(questions)) as squeezer,
                o.progress_bar(f"{number} of {len(cells)}: {cell.name}") as advance,
            ):
                tool = SearchTool(
                    retriever, search, squeezer=squeezer, count_tokens=token_counter(opened)
                )
                episodes = infer_episodes(
                    questions, opened, tool, run, out_path=path, fresh=fresh,
                    retry_failed=retry_failed, inputs=[data.questions_path], on_progress=advance,
                )  # fmt: skip
            paths.append(path)
            scored[cell] = score_run(
                cell.name,
                episodes,
                questions,
                golds,
                passport=read_passport(passport_path(path)),
                seconds_of=read_seconds(path),
                seed=seed,
            )
    runs = list(scored.values())
    budget = equal_budget(runs)
    output.begin(fresh=fresh)
    inputs = [data.questions_path, data.qrels_path, *paths]
    write_scores(
        out, runs, budget, settings=settings, inputs=inputs, seed=seed, stage=STAGE,
        made=output.record,
    )  # fmt: skip
    table = sweep_table(scored, budget)
    with atomic_write(out / "sweep.md") as stream:
        stream.write(f"{table}\n")
    output.end()
    o.say(table)
    say_plots(plots, lambda kind: write_sweep_charts(out, sweep_curves(scored), form=kind))
    say_plots(plots, lambda kind: write_score_charts(out, runs, form=kind))
    o.say(f"written to {out}")
