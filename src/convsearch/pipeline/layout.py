"""Where each thing of a run lies. One home for the names, shared by the stages and the report."""

from dataclasses import dataclass
from pathlib import Path

POLICIES = ("base", "sft", "grpo")
"""The three policies whose rewrites are compared: before, after self-distillation, after GRPO."""
TRAINED = ("sft", "grpo")
"""Those of them that a stage of this name trains."""
COMPARED = ("raw", "history", *POLICIES)
"""What every run has, in the order of every table: two fixed queries, then the policies."""


def row_folder(name: str) -> str:
    """Name of the folder of a row of a table: a colon cannot be in one everywhere."""
    return name.replace(":", "-")


@dataclass(frozen=True, kw_only=True)
class RunLayout:
    """The paths inside one run folder."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def policy(self) -> Path:
        """The nano policy, where the run builds one."""
        return self.root / "policy"

    @property
    def index(self) -> Path:
        return self.root / "index"

    @property
    def distill(self) -> Path:
        return self.root / "distill"

    @property
    def sft(self) -> Path:
        return self.root / "sft"

    @property
    def grpo(self) -> Path:
        return self.root / "grpo"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def metrics(self) -> Path:
        """What the trainers logged, one object a line with `stage` and `step`."""
        return self.root / "metrics.jsonl"

    def infer(self, policy: str) -> Path:
        return self.root / "infer" / policy

    def rewrites(self, policy: str) -> Path:
        return self.infer(policy) / "rewrites.jsonl"

    def eval(self, compared: str) -> Path:
        return self.root / "eval" / row_folder(compared)

    def queries(self, compared: str) -> Path:
        """One line for each turn: the query that was searched, its rank, its metrics."""
        return self.eval(compared) / "per_query.jsonl"

    def model(self, policy: str) -> Path:
        """The folder of a trained policy."""
        return self.root / policy / "model"

    @property
    def stages(self) -> Path:
        """Passports of the stages; its presence marks a folder as a run."""
        return self.root / "stages"

    def stage(self, name: str) -> Path:
        return self.stages / name

    def passport(self, name: str) -> Path:
        return self.stage(name) / "run.json"
