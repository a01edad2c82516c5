"""Which steps make which table of the paper (arXiv 2505.15776)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from convsearch.errors import ConfigError
from convsearch.eval.published import SIZES
from convsearch.pipeline.reproduce import names as n
from convsearch.pipeline.reproduce import steps as s
from convsearch.pipeline.reproduce.names import CORPORA, ENGINES, MODELS, Corpus, Model
from convsearch.pipeline.reproduce.steps import Site, Source, Step

TableName = Literal["table1", "table2", "table3", "table4", "table5", "table6"]
TABLES: tuple[str, ...] = get_args(TableName)
MAIN_MODELS = ("qwen2.5-3b", "llama3.2-3b")
"""Policies of the tables that name none in MODELS_OF."""
MODELS_OF = {"table3": ("qwen2.5-3b",), "table5": ("llama2-7b",), "table6": ("qwen2.5-3b",)}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a table is wanted."""

    table: TableName
    datasets: tuple[str, ...] = tuple(CORPORA)
    engines: tuple[str, ...] = ENGINES
    models: tuple[str, ...] = tuple(MODELS)
    seeds: int = 3
    """Runs of inference for each model, which give the spread."""
    site: Site = field(default_factory=Site)
    train_engine: str = n.TRAIN_ENGINE
    """Engine whose ranks train the policy."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One group of cells: the methods on one data set and search engine."""

    corpus: Corpus
    engine: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One cell of the table of sizes: what self-distillation kept."""

    model: Model
    corpus: Corpus


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One table."""

    table: str
    steps: tuple[Step, ...]
    """In the order in which they can be run, each once."""
    columns: tuple[Column, ...]
    sizes: tuple[Size, ...] = ()
    """Of SIZES, which has no columns."""


def plan(choice: Choice) -> Plan:
    """The steps of a table. Raises ConfigError for a choice that the table does not have."""
    datasets, models = choice.datasets, choice.models
    models = tuple(m for m in models if m in MODELS_OF.get(choice.table, MAIN_MODELS))
    if choice.table == "table6":
        datasets = tuple(d for d in datasets if d == "topiocqa")
    if not datasets or not models or not choice.engines or choice.seeds < 1:
        raise ConfigError(f"{choice.table} has no cells for this choice of data set and model")
    corpora = [CORPORA[name] for name in datasets]
    chosen = [replace(MODELS[name], train_engine=choice.train_engine) for name in models]
    if choice.table == SIZES:
        return _sizes(choice, chosen, corpora)
    columns = tuple(
        Column(corpus=corpus, engine=engine, sources=_sources(choice.table, chosen, corpus))
        for corpus in corpora
        for engine in choice.engines
    )
    found: list[Step] = []
    found += _preparation(choice, corpora)
    for corpus in corpora:
        found += _training(choice, chosen, corpus)
    for column in columns:
        for source in column.sources:
            found += s.infer_steps(source, column.corpus, choice.site, choice.seeds)
    for column in columns:
        for source in column.sources:
            found += s.eval_steps(source, column.corpus, column.engine, choice.seeds)
        if choice.table == "table1":
            found.append(_training_free(column, chosen[0]))
    for column in columns:
        found.append(
            s.compare_step(choice.table, column.sources, column.corpus, column.engine, choice.seeds)
        )
    return Plan(table=choice.table, steps=_in_order(found), columns=columns)


def _sizes(choice: Choice, models: Sequence[Model], corpora: Sequence[Corpus]) -> Plan:
    """The steps up to self-distillation; nothing is trained or searched for a column."""
    found = _preparation(replace(choice, engines=()), corpora)
    for corpus in corpora:
        found.append(s.serve_step(corpus, choice.train_engine))
        found += [s.distill_step(model, corpus, choice.site) for model in models]
    return Plan(
        table=choice.table,
        steps=_in_order(found),
        columns=(),
        sizes=tuple(Size(model=model, corpus=corpus) for corpus in corpora for model in models),
    )


def _in_order(found: Sequence[Step]) -> tuple[Step, ...]:
    """By phase, each command once."""
    unique = {step.line: step for step in found}
    return tuple(sorted(unique.values(), key=lambda step: s.PHASES.index(step.phase)))


def _preparation(choice: Choice, corpora: Sequence[Corpus]) -> list[Step]:
    trained_on = [_other(c) for c in corpora] if choice.table == "table2" else corpora
    found = [s.models_step()] if "ance" in (*choice.engines, choice.train_engine) else []
    for corpus in dict.fromkeys((*corpora, *trained_on)):
        engines = dict.fromkeys(
            [
                *(choice.engines if corpus in corpora else ()),
                *((choice.train_engine,) if corpus in trained_on else ()),
            ]
        )
        found += [s.data_step(corpus), *(s.index_step(corpus, engine) for engine in engines)]
    return found


def _training(choice: Choice, models: Sequence[Model], corpus: Corpus) -> list[Step]:
    trained_on = _other(corpus) if choice.table == "table2" else corpus
    found = [s.serve_step(trained_on, choice.train_engine), s.prompts_step(trained_on)]
    for model in models:
        found.append(s.distill_step(model, trained_on, choice.site))
        found += s.sft_steps(model, trained_on, choice.site)
        found += s.grpo_steps(model, trained_on, choice.site)
        if choice.table in ("table3", "table5"):
            found += s.grpo_steps(model, trained_on, choice.site, name="grpo_only", start="base")
        if choice.table == "table6":
            for reward in ("exponential", "reciprocal"):
                found += s.grpo_steps(
                    model, trained_on, choice.site, name=f"grpo_{reward}", reward=reward
                )
    return found


def _sources(table: str, models: Sequence[Model], corpus: Corpus) -> tuple[Source, ...]:
    """The rows, what needs no training first."""
    raw = Source(method="raw", published="Raw query", kind="fixed", baseline="raw")
    history = Source(method="history", published="", kind="fixed", baseline="history")
    last = Source(method="history-3", published="", kind="fixed", baseline="history:3")
    found = [raw, history, last] if table == "table1" else []
    for model in models:
        folder = n.training_folder(model, _other(corpus) if table == "table2" else corpus)
        grpo = str(folder / "grpo_model")
        ours = f"{model.title} + ConvSearch-R1"
        if table == "table1":
            found += [
                _prompted(model, "zero-shot", f"{model.title} zero-shot", "--prompt", "instruct"),
                _prompted(model, "few-shot", "", "--prompt", "instruct", "--shots", "1"),
                _prompted(model, "pseudo-document", "", "--prompt", "pseudo_document"),
                _trained(f"{model.label}-convsearch-r1", ours, grpo),
            ]
        elif table == "table2":
            name = f"{model.label}-convsearch-r1-of-{_other(corpus).name}"
            found.append(_trained(name, ours, grpo))
        elif table in ("table3", "table5"):
            if table == "table3":
                sft = str(folder / "sft_model")
                found += [
                    _prompted(model, "zero-shot", "no training", "--prompt", "instruct"),
                    _trained(f"{model.label}-sft", "self-distillation only", sft),
                ]
            found += [
                _trained(
                    f"{model.label}-grpo-only",
                    "reinforcement learning only",
                    str(folder / "grpo_only_model"),
                ),
                _trained(f"{model.label}-convsearch-r1", "both stages", grpo),
            ]
        else:
            found.append(_trained(f"{model.label}-convsearch-r1", "piecewise", grpo))
            found += [
                _trained(f"{model.label}-{reward}", reward, str(folder / f"grpo_{reward}_model"))
                for reward in ("exponential", "reciprocal")
            ]
    return tuple(found)


def _prompted(model: Model, name: str, published: str, *prompt: str) -> Source:
    return Source(
        method=f"{model.name}-{name}",
        published=published,
        kind="prompted",
        model=model.hub,
        prompt=prompt,
    )


def _trained(method: str, published: str, model: str) -> Source:
    return Source(method=method, published=published, kind="trained", model=model)


def _training_free(column: Column, model: Model) -> Step:
    """What needs no training, and its union, in one table."""
    corpus, engine = column.corpus, column.engine
    by_name = {source.method: source for source in column.sources}
    files = {
        name: s.rewrites_of(by_name[f"{model.name}-{name}"], corpus, 0)
        for name in ("few-shot", "pseudo-document")
    }
    out = n.RUNS / corpus.name / engine / "training-free"
    dense = ("--encoder", str(n.ENCODER)) if engine == "ance" else ()
    return Step(
        phase="evaluation",
        title=f"training-free methods and their union in one table, {corpus.name} by {engine}",
        words=(
            *("convsearch", "eval", "--dataset", str(corpus.folder), "--split", "test"),
            *("--baseline", "raw", "--baseline", "history", "--baseline", "history:3"),
            *(word for name, file in files.items() for word in ("--prompted", f"{name}={file}")),
            *("--union", "few-shot+pseudo-document"),
            *("--index", str(corpus.index(engine)), *dense, "--out", str(out)),
        ),
        needs=s.Needs(
            ram_gb=corpus.index_gb(engine) if engine == "ance" else 8,
            files=(corpus.index(engine) / "manifest.json", *files.values()),
        ),
        makes=out / "run.json",
    )


def _other(corpus: Corpus) -> Corpus:
    return next(c for c in CORPORA.values() if c is not corpus)
