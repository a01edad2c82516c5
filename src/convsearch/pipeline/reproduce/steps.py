"""The steps of a reproduction: one command each, what it needs, what it leaves behind."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from convsearch.pipeline.reproduce import names as n
from convsearch.pipeline.reproduce.names import Corpus, Model

TRAIN_RAM_GB = 200
"""Host memory for one node with vLLM, FSDP2 and Ray: our judgement, not measured."""
MARK = "reproduced.json"
"""What `--run` writes where a step that leaves no other sign has ended well."""
PHASES = ("data", "models", "indexes", "training", "inference", "evaluation", "comparison")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a machine must have for one step."""

    gpus: int = 0
    disk_gb: float = 0
    ram_gb: float = 0
    packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    """Made by earlier steps."""
    server: bool = False
    """A retrieval server that answers."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the commands are meant to run."""

    gpus: int = n.GPUS
    """Of the node."""
    url: str = n.URL
    """Of the retrieval server for training."""

    def training(self, *env: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """The environment of a training script."""
        return (*env, *((("GPUS", str(self.gpus)),) if self.gpus != n.GPUS else ()))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    phase: str
    title: str
    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    """Set before the command."""
    needs: Needs = field(default_factory=Needs)
    makes: Path | None = None
    """File that is there when the step is done; None for one that is never done, as a server."""
    marked: bool = False
    """Whether `makes` is a mark that `--run` leaves, because the command leaves nothing that tells
    a finished result from a part of one."""
    stays: bool = False
    """Runs until it is stopped, in a terminal of its own."""
    compares: tuple[tuple[str, tuple[Path, ...]], ...] = ()
    """A comparison's methods: name -> evaluation folders, one for each seed."""
    column: tuple[str, str] = ("", "")
    """A comparison's data set and engine."""

    @property
    def line(self) -> str:
        """The command as a shell takes it."""
        before = [f"{key}={shlex.quote(value)}" for key, value in self.env]
        return " ".join([*before, shlex.join(self.words)])


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the queries of one method come from."""

    method: str
    """Name of the method, and of its folders."""
    published: str
    """Its row in the published table; empty where that has none."""
    kind: Literal["fixed", "prompted", "trained"]
    """`fixed` queries are always the same, the others are sampled."""
    baseline: str | None = None
    model: str | None = None
    """Checkpoint or hub name."""
    prompt: tuple[str, ...] = ()
    """Options of `convsearch infer`."""

    def seeds(self, count: int) -> range:
        return range(1 if self.baseline else count)


def data_step(corpus: Corpus) -> Step:
    return Step(
        phase="data",
        title=f"download {corpus.name} and convert it",
        words=(
            *("convsearch", "data", corpus.name, "--out", str(corpus.folder)),
            *corpus.as_the_paper,
        ),
        needs=Needs(disk_gb=corpus.data_gb),
        makes=corpus.folder / "run.json",
    )


def models_step() -> Step:
    return Step(
        phase="models",
        title="download the models",
        words=("bash", n.DOWNLOAD_MODELS),
        needs=Needs(disk_gb=20),
        makes=n.ENCODER.parent / MARK,
        marked=True,
    )


def index_step(corpus: Corpus, engine: str) -> Step:
    files = (corpus.folder / "run.json", *((n.ENCODER,) if engine == "ance" else ()))
    return Step(
        phase="indexes",
        title=f"index {corpus.name} for {engine}",
        env=_encoder(engine),
        words=("bash", corpus.build_script(engine)),
        needs=Needs(
            gpus=1 if engine == "ance" else 0, disk_gb=corpus.index_gb(engine), files=files
        ),
        makes=corpus.index(engine) / "manifest.json",
    )


def serve_step(corpus: Corpus, engine: str) -> Step:
    return Step(
        phase="training",
        title=f"serve {corpus.name} by {engine}, in a terminal of its own",
        env=_encoder(engine),
        words=("bash", corpus.serve_script(engine)),
        needs=Needs(
            ram_gb=corpus.index_gb(engine) if engine == "ance" else 8,
            files=(corpus.index(engine) / "manifest.json",),
        ),
        stays=True,
    )


def distill_step(model: Model, corpus: Corpus, site: Site) -> Step:
    """Self-distillation."""
    out = distilled(model, corpus)
    return Step(
        phase="training",
        title=f"self-distillation, {model.title} on {corpus.name}",
        words=(
            *("convsearch", "distill", "--dataset", str(corpus.folder), "--split", "train"),
            *("--model", model.hub, "--engine", "vllm", "--workers", str(site.gpus)),
            *("--retriever-url", site.url, "--out", str(out)),
        ),
        needs=Needs(
            gpus=site.gpus,
            packages=("vllm",),
            files=(corpus.folder / "run.json",),
            server=True,
        ),
        makes=out / "run.json",
    )


def sft_steps(model: Model, corpus: Corpus, site: Site) -> list[Step]:
    """SFT on what self-distillation kept, and the model folder of it."""
    folder = n.training_folder(model, corpus)
    what = f"{model.title} on {corpus.name}"
    examples = distilled(model, corpus) / "sft_train.parquet"
    elsewhere = (("TRAIN_FILE", str(examples)), ("OUT", str(folder / "sft")))
    return [
        Step(
            phase="training",
            title=f"supervised fine-tuning, {what}",
            env=site.training(*(() if model.label == model.name else elsewhere)),
            words=("bash", n.sft_script(model, corpus)),
            needs=Needs(
                gpus=site.gpus,
                ram_gb=TRAIN_RAM_GB,
                packages=("verl",),
                files=(examples,),
            ),
            makes=folder / "sft" / MARK,
            marked=True,
        ),
        _merge(folder / "sft", folder / "sft_model", f"model folder of SFT, {what}"),
    ]


def prompts_step(corpus: Corpus) -> Step:
    out = corpus.folder / "grpo.parquet"
    return Step(
        phase="training",
        title=f"prompts of {corpus.name} for GRPO",
        words=(
            *("convsearch", "data", "prompts", "--dataset", str(corpus.folder)),
            *("--split", "train", "--out", str(out)),
        ),
        needs=Needs(packages=("pyarrow",), files=(corpus.folder / "run.json",)),
        makes=out,
    )


def grpo_steps(
    model: Model,
    corpus: Corpus,
    site: Site,
    *,
    name: str = "grpo",
    start: str = "sft",
    reward: str = "",
) -> list[Step]:
    """GRPO from the fine-tuned model, or from the first one; under the paper's or another reward.

    name: folder of the run. start: `sft`, or `base` for no warm-up. reward: a shape of
    `convsearch.rewards.shapes`; empty is the recipe's own.
    """
    folder = n.training_folder(model, corpus)
    first = str(folder / "sft_model") if start == "sft" else model.hub
    what = f"{model.title} on {corpus.name}" + (f", reward {reward}" if reward else "")
    what += "" if start == "sft" else ", without warm-up"
    needed = [corpus.folder / "grpo.parquet", *([folder / "sft_model"] if start == "sft" else [])]
    return [
        Step(
            phase="training",
            title=f"GRPO, {what}",
            env=site.training(
                ("RETRIEVER_URL", site.url), ("MODEL", first), ("OUT", str(folder / name))
            ),
            words=(
                *("bash", n.grpo_script(model, corpus)),
                *((f"retriever.reward={reward}",) if reward else ()),
            ),
            needs=Needs(
                gpus=site.gpus,
                ram_gb=TRAIN_RAM_GB,
                packages=("verl", "vllm"),
                files=tuple(needed),
                server=True,
            ),
            makes=folder / name / MARK,
            marked=True,
        ),
        _merge(folder / name, folder / f"{name}_model", f"model folder of GRPO, {what}"),
    ]


def infer_steps(source: Source, corpus: Corpus, site: Site, seeds: int) -> list[Step]:
    """One command for each seed; none for a baseline."""
    if source.model is None:
        return []
    local = Path(source.model)
    files = (corpus.folder / "run.json", *((local,) if local.parts[0] == "runs" else ()))
    return [
        Step(
            phase="inference",
            title=f"rewrites of {source.method} for {corpus.name}, seed {seed}",
            words=(
                *("convsearch", "infer", "--dataset", str(corpus.folder), "--split", "test"),
                *("--model", source.model, "--engine", "vllm", "--workers", str(site.gpus)),
                *source.prompt,
                *("--seed", str(seed), "--out", str(rewrites_of(source, corpus, seed))),
            ),
            needs=Needs(gpus=site.gpus, packages=("vllm",), files=files),
            makes=rewrites_of(source, corpus, seed).with_suffix(".run.json"),
        )
        for seed in source.seeds(seeds)
    ]


def eval_steps(source: Source, corpus: Corpus, engine: str, seeds: int) -> list[Step]:
    """One command for each seed."""
    made = []
    for seed in source.seeds(seeds):
        rewrites = rewrites_of(source, corpus, seed)
        what = ("--baseline", source.baseline) if source.baseline else ("--rewrites", str(rewrites))
        files = [corpus.folder / "run.json", corpus.index(engine) / "manifest.json"]
        dense = ("--encoder", str(n.ENCODER)) if engine == "ance" else ()
        files += [n.ENCODER] if engine == "ance" else []
        out = evaluation_of(source, corpus, engine, seed)
        made.append(
            Step(
                phase="evaluation",
                title=f"evaluate {source.method} on {corpus.name} by {engine}"
                + ("" if source.baseline else f", seed {seed}"),
                words=(
                    *("convsearch", "eval", "--dataset", str(corpus.folder), "--split", "test"),
                    *what,
                    *("--index", str(corpus.index(engine)), *dense, "--out", str(out)),
                ),
                needs=Needs(
                    ram_gb=corpus.index_gb(engine) if engine == "ance" else 8,
                    files=(*files, *(() if source.baseline else (rewrites,))),
                ),
                makes=out / "run.json",
            )
        )
    return made


def compare_step(
    table: str, sources: Sequence[Source], corpus: Corpus, engine: str, seeds: int
) -> Step:
    """All methods of one column group beside the published ones."""
    methods = tuple(
        (s.method, tuple(evaluation_of(s, corpus, engine, seed) for seed in s.seeds(seeds)))
        for s in sources
    )
    return Step(
        phase="comparison",
        title=f"{table}, {corpus.name} by {engine}, beside the published numbers",
        words=compare_words(table, methods, corpus, engine),
        compares=methods,
        column=(corpus.name, engine),
    )


def compare_words(
    table: str,
    methods: Sequence[tuple[str, Sequence[Path]]],
    corpus: Corpus,
    engine: str,
) -> tuple[str, ...]:
    """`convsearch compare` of these evaluation folders."""
    named = (f"{name}={','.join(map(str, folders))}" for name, folders in methods)
    out = n.RUNS / corpus.name / engine / f"{table}.md"
    return (
        *("convsearch", "compare", *named, "--against", methods[0][0]),
        *("--published", f"{table}/{corpus.name}/{engine}"),
        *("--format", "markdown", "--out", str(out)),
    )


def distilled(model: Model, corpus: Corpus) -> Path:
    return n.training_folder(model, corpus) / "distill"


def rewrites_of(source: Source, corpus: Corpus, seed: int) -> Path:
    return n.RUNS / corpus.name / "infer" / f"{source.method}_{seed}" / "rewrites.jsonl"


def evaluation_of(source: Source, corpus: Corpus, engine: str, seed: int) -> Path:
    name = source.method if source.baseline else f"{source.method}_{seed}"
    return n.RUNS / corpus.name / engine / name


def _encoder(engine: str) -> tuple[tuple[str, str], ...]:
    """The scripts take another encoder by default."""
    return (("ENCODER", str(n.ENCODER)),) if engine == "ance" else ()


def _merge(checkpoint: Path, out: Path, title: str) -> Step:
    return Step(
        phase="training",
        title=title,
        words=("bash", n.MERGE, "--checkpoint", str(checkpoint), "--out", str(out)),
        needs=Needs(packages=("verl",), files=(checkpoint / MARK,)),
        makes=out / "config.json",
    )
