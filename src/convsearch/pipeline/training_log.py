"""What a run takes over from its trainings: progress, counts, one log of all steps."""

import json
from pathlib import Path

from convsearch.files import write_jsonl
from convsearch.pipeline.layout import TRAINED, RunLayout
from convsearch.pipeline.runner import Counts, Progress
from convsearch.train.metrics import ProgressCallback, metrics_line, read_metrics
from convsearch.train.step_text import step_text


def collect_training_metrics(layout: RunLayout) -> None:
    """Joins what the trainers logged into `metrics.jsonl` of the run: one line a step, flat."""
    lines = []
    for name in TRAINED:
        steps = read_metrics(layout.root / name / "metrics.jsonl")
        lines += [metrics_line(name, step, values) for step, values in steps.items()]
    write_jsonl(layout.metrics, lines)


def steps_of(progress: Progress) -> ProgressCallback:
    """What a trainer calls after each step, for the stage that it is."""
    return lambda step: progress(step.step, step.total_steps, step_text(step.metrics))


def training_counts(folder: Path) -> Counts:
    """The counts in the passport that a trainer left."""
    counts = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("counts")
    return counts if isinstance(counts, dict) else {}
