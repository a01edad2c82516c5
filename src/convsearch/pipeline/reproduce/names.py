"""Names that the commands of a reproduction are made of: models, data sets, scripts, places."""

from dataclasses import dataclass
from pathlib import Path

URL = "http://127.0.0.1:8000"
"""Where the serve scripts listen unless told otherwise."""
GPUS = 8
"""Of the recipes' node, unless told otherwise."""
GPU_COUNTS = (1, 2, 4, 8)
"""Of one node, that a batch of the recipes divides among."""
ENGINES = ("bm25", "ance")
TRAIN_ENGINE = "ance"
"""Whose ranks train unless told otherwise: ANCE by the authors' word and by the folders of the
published scripts; the paper does not say, and one checkpoint was released for both engines."""
ENCODER = Path("data/models/ance-paper")
"""The encoder of the paper's ANCE columns, as `scripts/download_models.sh` leaves it."""
RUNS = Path("runs/reproduce")
"""Rewrites and evaluations of a reproduction."""
DOWNLOAD_MODELS = "scripts/download_models.sh"
MERGE = "scripts/merge_checkpoint.sh"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A policy of the paper."""

    name: str
    """In names of scripts."""
    title: str
    """As the published tables call it."""
    hub: str
    train_engine: str = TRAIN_ENGINE
    """Whose ranks train it."""

    @property
    def label(self) -> str:
        """In names of folders and methods: one trained by other ranks is another model."""
        by = "" if self.train_engine == TRAIN_ENGINE else f"-by-{self.train_engine}"
        return f"{self.name}{by}"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A data set of the paper, with what it takes; sizes in GB are by proportion, not measured."""

    name: str
    test_turns: int
    """Turns of the paper's test set (table 7)."""
    data_gb: float
    """Raw files and the data set folder."""
    bm25_gb: float
    ance_gb: float
    """The index in bfloat16; searching holds it in memory."""
    as_the_paper: tuple[str, ...]
    """Options of `convsearch data` that make the paper's training set and relevance."""

    @property
    def folder(self) -> Path:
        return Path("data") / self.name

    def index(self, engine: str) -> Path:
        return Path("indexes") / f"{self.name}_{engine}"

    def index_gb(self, engine: str) -> float:
        return self.bm25_gb if engine == "bm25" else self.ance_gb

    def build_script(self, engine: str) -> str:
        return f"scripts/build_index_{self.name}_{engine}.sh"

    def serve_script(self, engine: str) -> str:
        return f"scripts/serve_{self.name}_{engine}.sh"


MODELS = {
    model.name: model
    for model in (
        Model(name="qwen2.5-3b", title="Qwen2.5-3B", hub="Qwen/Qwen2.5-3B-Instruct"),
        Model(name="llama3.2-3b", title="Llama3.2-3B", hub="meta-llama/Llama-3.2-3B-Instruct"),
        # The paper says Llama2-7B; a conversation needs the model that has a chat template.
        Model(name="llama2-7b", title="Llama2-7B", hub="meta-llama/Llama-2-7b-chat-hf"),
    )
}
CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="topiocqa",
            test_turns=2514,
            data_gb=40,
            bm25_gb=27,
            ance_gb=39.5,
            as_the_paper=("--gold", "first", "--validation-share", "0"),
        ),
        Corpus(
            name="qrecc",
            test_turns=8124,
            data_gb=90,
            bm25_gb=57,
            ance_gb=83.9,
            as_the_paper=("--validation-share", "0"),
        ),
    )
}


def sft_script(model: Model, corpus: Corpus) -> str:
    return f"verl/examples/sft/{corpus.name}/run_sft_{model.name}.sh"


def grpo_script(model: Model, corpus: Corpus) -> str:
    return f"verl/examples/grpo_trainer/run_{model.name}_{corpus.name}.sh"


def training_folder(model: Model, corpus: Corpus) -> Path:
    """What training a model on a data set leaves."""
    return Path("runs") / f"{model.label}_{corpus.name}"


def scripts() -> list[str]:
    """Every script that a reproduction may name."""
    found = [DOWNLOAD_MODELS, MERGE]
    for corpus in CORPORA.values():
        for engine in ENGINES:
            found += [corpus.build_script(engine), corpus.serve_script(engine)]
        for model in MODELS.values():
            found += [sft_script(model, corpus), grpo_script(model, corpus)]
    return found
