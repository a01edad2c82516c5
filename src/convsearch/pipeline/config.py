"""Settings of a whole run. Every number can be changed by name (`--set grpo.total_steps=40`).

The sections `distill`, `sft` and `grpo` are the rooms' own settings. Their paths and seeds are the
run's business: whatever stands there is replaced when the stage starts.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from convsearch.distill import DistillSettings
from convsearch.errors import ConfigError
from convsearch.infer import SamplingParams
from convsearch.nano.settings import NanoSettings
from convsearch.pipeline.overrides import setting_keys
from convsearch.prompts import TrainedStyle
from convsearch.train.grpo_settings import GrpoSettings
from convsearch.train.sft import SftSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UNSET = Path()
"""Stands where the run fills in a path."""
S = TypeVar("S", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which turns are used. A limit takes whole conversations, drawn by the seed."""

    eval_split: str
    """Split that is evaluated; training never sees it."""
    eval_turns: int = 0
    """Evaluate no more turns than this; 0 is all."""
    distill_turns: int = 0
    """Draw candidates for no more training turns than this; 0 is all."""
    grpo_turns: int = 0
    """Train GRPO on no more turns than this; 0 is all."""
    grpo_val_turns: int = 0
    """So many of them are held out, as whole conversations, and the best step of GRPO is the one
    with the highest mean reward on them; 0 holds none out and takes the last step."""


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """The BM25 index."""

    k1: float = 0.9
    """How slowly repetitions of a word stop to count."""
    b: float = 0.4
    """How much long passages are held back."""


@dataclass(frozen=True, kw_only=True)
class InferSettings:
    """Rewriting the evaluated turns."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates; also for self-distillation."""
    batch_size: int = 64
    """Turns of one block: what an interrupt can cost."""
    sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Searching with every source of queries and measuring the result."""

    topk: int = 100
    """Depth of the search; MRR looks no deeper."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """One run from data to report. Raises ConfigError for settings that contradict each other."""

    dataset: str
    """Name of the data set, as it stands in the report."""
    kind: Literal["mini", "pooled", "folder"]
    """`mini`: the embedded data set, made by its generator. `pooled`: converted from `source`.
    `folder`: the data set folder `source`, as it is."""
    source: Path | None = None
    """Folder of a pooled data set, or a data set folder; none for `mini`."""
    policy: Path | None
    """Folder of the policy to start from, in Hugging Face form; None builds a nano policy for the
    data as a stage of the run, from the settings `nano`."""
    style: TrainedStyle
    """Prompt of the policy, in every stage."""
    seed: int = 0
    """Seed of every draw in the run."""
    data: DataSettings
    index: IndexSettings = field(default_factory=IndexSettings)
    distill: DistillSettings
    sft: SftSettings
    grpo: GrpoSettings
    infer: InferSettings
    nano: NanoSettings = field(default_factory=NanoSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)

    def __post_init__(self) -> None:
        if self.kind != "mini" and self.source is None:
            flag = "--source" if self.kind == "pooled" else "--dataset"
            raise ConfigError(f"data set {self.dataset!r} needs its folder; name it with {flag}")
        if self.kind == "mini" and self.source is not None:
            raise ConfigError(f"data set {self.dataset!r} is made anew and takes no --source")

    def flat(self) -> dict[str, object]:
        """Every setting by its dotted name, as `--set` takes it."""
        return {key: _value(self, key) for key in setting_keys(self)}

    def section(self, name: str) -> dict[str, object]:
        """The settings of one section by their own names, JSON-ready; for fingerprints."""
        return {key: value for key, value in self.flat().items() if key.startswith(f"{name}.")}


def filled(settings: S, **values: object) -> S:
    """The settings of a room with what the run decides: paths, seed, style."""
    return dataclasses.replace(settings, **values)


def _value(config: object, key: str) -> object:
    for name in key.split("."):
        config = getattr(config, name)
    return config
