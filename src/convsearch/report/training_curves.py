"""Curves of a training, as files: what verl logged at every step.

For agents after figure 4 of ExpandSearch (arXiv 2510.10009): reward, right answers, searches and
the length of what the model writes, over the steps of one run or several.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convsearch.errors import DataError
from convsearch.files import atomic_write_bytes
from convsearch.report.charts import COLOURS, draw_chart
from convsearch.report.comparison_charts import INK
from convsearch.train.metrics import Metrics, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "reward": ("critic/score/mean", "reward"),
    "em": ("agent/em", "exact match"),
    "gold": ("agent/gold_recall", "share of gold passages read"),
    "queries": ("agent/num_queries", "queries a question"),
    "documents": ("agent/documents", "documents a question"),
    "turns": ("agent/num_turns", "turns a question"),
    "length": ("response_length/mean", "tokens of an episode"),
    "form": ("agent/valid_form", "share in a valid form"),
    "rank": ("rewrite/reciprocal_rank", "reciprocal rank of the responses"),
    "found": ("rewrite/found", "share found"),
    "malformed": ("rewrite/malformed", "share malformed"),
    "flat": ("rewrite/flat_groups", "share of groups of equal rewards"),
    "kl": ("actor/kl_loss", "divergence from the first model"),
    "loss": ("train/loss", "loss"),
}
"""Name of a curve -> verl's metric, and how it is called."""
LOG = "metrics.jsonl"
WINDOW = 5
"""Steps of the running mean that is drawn over the values."""


def read_run(folder: Path) -> dict[int, Metrics]:
    """Step -> metrics of a training folder, over all its starts; a step done again counts once,
    as it was done last.

    Raises DataError where it holds no metrics of an agent's training.
    """
    steps: dict[int, Metrics] = {}
    files = sorted([*folder.glob("metrics.jsonl"), *folder.glob("metrics_*.jsonl")])
    for path in files:
        for step, values in read_metrics(path).items():
            steps.setdefault(step, {}).update(values)
    if not any("agent/em" in values for values in steps.values()):
        raise DataError(
            f"{folder}: holds no metrics*.jsonl of an agent's training; name the folder that the "
            "recipe wrote (OUT)"
        )
    return dict(sorted(steps.items()))


def write_training_curves(folder: Path) -> list[Path]:
    """The curves of one training by `convsearch grpo` or `sft`, written to its folder `curves`;
    returns their paths. Raises DataError where the folder has no log of one."""
    steps = read_metrics(folder / LOG)
    written = write_curves(folder / "curves", {folder.resolve().name: steps}) if steps else []
    if not written:
        raise DataError(
            f"{folder}: neither a finished run (summary.json) nor a training ({LOG}); name the "
            'folder of "convsearch quickstart", or what --out of "convsearch grpo" or "sft" named'
        )
    return written


def running_mean(values: Sequence[float], window: int = WINDOW) -> list[float]:
    """Mean of each value and those before it, `window` of them at most."""
    parts = [values[max(0, i + 1 - window) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def write_curves(
    folder: Path, runs: Mapping[str, Mapping[int, Metrics]], *, form: Literal["svg", "png"] = "svg"
) -> list[Path]:
    """Writes one chart for each curve that any run has, a line for each run; returns their paths.

    Raises DependencyError where matplotlib is not installed.
    """
    drawn: dict[Path, bytes] = {}
    for name, (key, label) in PANELS.items():
        points = {
            run: [(step, values[key]) for step, values in steps.items() if key in values]
            for run, steps in runs.items()
        }
        if any(points.values()):
            out = io.BytesIO()
            draw_chart(
                out,
                lambda axes, points=points, label=label: _draw(axes, points, label),
                name=f"training_{name}",
                ink=INK,
                form=form,
            )
            drawn[folder / f"training_{name}.{form}"] = out.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in drawn.items():
        atomic_write_bytes(path, content)
    return list(drawn)


def _draw(axes: "Axes", runs: Mapping[str, Sequence[tuple[int, float]]], label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    palette = cycle(list(COLOURS.values())[::-1])
    for (name, points), colour in zip(runs.items(), palette, strict=False):
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, "o", color=colour, markersize=2, alpha=0.35)
        axes.plot(steps, running_mean(values), color=colour, label=name, linewidth=1.6)
    axes.set_xlabel(f"step (line: mean of the last {WINDOW})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
