"""Renders `report.html`: one page that needs no other file; all text escaped, no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from convsearch.eval.metrics import METRICS
from convsearch.files import atomic_write
from convsearch.pipeline.layout import COMPARED, RunLayout
from convsearch.pipeline.summary import Summary
from convsearch.report import charts
from convsearch.report.run_folder import LoggedStep, RunFolder, load_run

EXPLAINED = {
    "raw": "the last question as it was asked",
    "history": "the last question with the whole conversation before it",
    "base": "rewrites of the policy before any training on ranks",
    "sft": "rewrites after self-distillation",
    "grpo": "rewrites after GRPO on the rank-incentive reward",
}
_FIXED_LABELS = ("NDCG@3", "R@5", "R@10", "R@20", "R@100")


@dataclass(frozen=True, kw_only=True)
class CurveSpec:
    """One learning-curve chart: which logged values it draws, where the log has them."""

    name: str
    title: str
    ylabel: str
    stage: str
    keys: dict[str, tuple[str, ...]]
    """legend -> names in the log, the first one present is drawn."""
    trailing: str | None = None
    """Legend of one more line, the mean of the last ten steps of the first; None for none."""


CURVES = (
    CurveSpec(
        name="reward",
        title="Reward by step of GRPO",
        ylabel="reward",
        stage="grpo",
        keys={"mean of a step": ("critic/score/mean", "critic/rewards/mean")},
        trailing="mean of 10 steps",
    ),
    CurveSpec(
        name="found",
        title="Ranks of the roll-outs",
        ylabel="mean",
        stage="grpo",
        keys={
            "reciprocal rank": ("rewrite/reciprocal_rank",),
            "share found": ("rewrite/found",),
        },
    ),
    CurveSpec(
        name="shares",
        title="Malformed responses, groups of equal rewards",
        ylabel="share",
        stage="grpo",
        keys={"malformed": ("rewrite/malformed",), "equal groups": ("rewrite/flat_groups",)},
    ),
    CurveSpec(
        name="length",
        title="Response length",
        ylabel="tokens",
        stage="grpo",
        keys={"mean": ("response_length/mean",)},
    ),
    CurveSpec(
        name="entropy",
        title="Entropy of the policy",
        ylabel="nats a token",
        stage="grpo",
        keys={"entropy": ("actor/entropy", "actor/entropy_loss")},
    ),
    CurveSpec(
        name="kl",
        title="Distance from the SFT policy (KL loss)",
        ylabel="nats a token",
        stage="grpo",
        keys={"KL": ("actor/kl_loss",)},
    ),
    CurveSpec(
        name="gradient",
        title="Gradient norm",
        ylabel="norm",
        stage="grpo",
        keys={"norm": ("actor/grad_norm",)},
    ),
    CurveSpec(
        name="sft-loss",
        title="Loss of SFT",
        ylabel="nats a token",
        stage="sft",
        keys={"training": ("train/loss",), "held out": ("val/loss",)},
    ),
)
TRAILING_STEPS = 10


def write_report(run: Path) -> Path:
    """Builds `report.html` of a finished run from its files; returns its path.

    Raises MissingFileError or DataError where the folder is no finished run, DependencyError
    where matplotlib is not installed.
    """
    layout = RunLayout(root=run)
    html = render(load_run(run))
    with atomic_write(layout.report) as out:
        out.write(html)
    return layout.report


def render(folder: RunFolder) -> str:
    """The page as one string."""
    environment = Environment(
        loader=PackageLoader("convsearch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = folder.summary
    ranks = {name: [row.rank for row in rows.values()] for name, rows in folder.outcomes.items()}
    mrr = {name: result.metrics["mrr"] for name, result in summary.stages.items()}
    intervals = {name: result.mrr_interval for name, result in summary.stages.items()}
    return environment.get_template("report.html.j2").render(
        summary=summary,
        compared=COMPARED,
        metrics=metric_labels(summary),
        explained=EXPLAINED,
        colours=charts.COLOURS,
        ratios={name: _ratio(value, mrr["raw"]) for name, value in mrr.items()},
        findings=findings(summary),
        mrr_svg=Markup(charts.mrr_chart(mrr, intervals, depth=summary.mrr_depth)),
        ranks_svg=Markup(charts.rank_histogram(ranks)),
        curves=[(spec.title, Markup(svg)) for spec, svg in _curve_charts(folder.steps)],
        examples=folder.examples,
        total_seconds=sum(summary.seconds.values()),
    )


def metric_labels(summary: Summary) -> dict[str, str]:
    """What a table of the run calls each metric; MRR has its depth in its name."""
    return dict(zip(METRICS, (f"MRR@{summary.mrr_depth}", *_FIXED_LABELS), strict=True))


def findings(summary: Summary) -> list[str]:
    """The comparison in sentences, as measured, in favour or not."""
    mrr = {name: result.metrics["mrr"] for name, result in summary.stages.items()}
    grpo = summary.stages["grpo"]
    ratios = [
        f"{_times(mrr['grpo'], mrr[other])} {other} ({mrr[other]:.3f})"
        for other in ("raw", "history", "sft")
    ]
    lines = [f"MRR@{summary.mrr_depth} of grpo is {mrr['grpo']:.3f}: {', '.join(ratios)}."]
    low, high = grpo.mrr_interval
    raw_low, raw_high = summary.stages["raw"].mrr_interval
    apart = low > raw_high or high < raw_low
    lines.append(
        f"The 95 % intervals of grpo ({low:.3f} to {high:.3f}) and raw ({raw_low:.3f} to "
        f"{raw_high:.3f}) {'do not overlap' if apart else 'overlap'}."
    )
    share = grpo.num_malformed / max(summary.num_queries, 1)
    lines.append(
        f"{grpo.num_malformed} of {summary.num_queries} responses of grpo ({share:.1%}) were "
        "malformed; those turns were searched with the raw question."
    )
    return lines


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "-"


def _times(value: float, base: float) -> str:
    return f"{value / base:.2f} times" if base else "no ratio to"


def _curve_charts(steps: Sequence[LoggedStep]) -> list[tuple[CurveSpec, str]]:
    drawn = []
    for spec in CURVES:
        own = [step for step in steps if step.stage == spec.stage]
        curves = {}
        for label, names in spec.keys.items():
            key = next((n for n in names if any(n in step.values for step in own)), None)
            if key is not None:
                curves[label] = [(s.step, s.values[key]) for s in own if key in s.values]
        if curves:
            if spec.trailing:
                curves[spec.trailing] = _trailing_means(next(iter(curves.values())))
            drawn.append((spec, charts.curve_chart(spec.name, curves, ylabel=spec.ylabel)))
    return drawn


def _trailing_means(points: charts.Curve) -> charts.Curve:
    means = []
    for end, (step, _) in enumerate(points, 1):
        window = [value for _, value in points[max(0, end - TRAILING_STEPS) : end]]
        means.append((step, sum(window) / len(window)))
    return means
