"""Renders `report.html`: one page that needs no other file; all text escaped, no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from convsearch.eval.metrics import METRICS
from convsearch.files import atomic_write
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.rivals import shown_rows, strongest, training_free
from convsearch.pipeline.summary import Summary
from convsearch.report import charts
from convsearch.report.run_folder import Example, LoggedStep, RunFolder, load_run
from convsearch.report.verdict import explained, findings, headline, next_steps, one_run_note
from convsearch.visible import visible

DISTILL_TERMS = {
    "turns": "training turns that the policy was asked to rewrite",
    "candidates": "rewrites it wrote, several a turn",
    "malformed": "broke the format of an answer",
    "failed": "the engine gave no response",
    "duplicate": "the same rewrite of the same turn, written before",
    "not_found": "the right passage was not among those searched",
    "rank_too_low": "the right passage was found, but not first",
    "surplus": "good, but the turn had enough good ones",
    "kept": "put the right passage first and became an example",
    "turns_kept": "turns with an example at least",
    "train": "examples to train on",
    "val": "examples held out of the training, to measure its loss",
    "train_conversations": "conversations of the examples to train on",
    "val_conversations": "conversations of those held out",
}
"""What the counts of self-distillation mean."""
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
    html = render(load_run(run), run)
    with atomic_write(layout.report) as out:
        out.write(html)
    return layout.report


def render(folder: RunFolder, run: Path) -> str:
    """The page as one string. run: where the folder lies, for the commands that the page names."""
    environment = Environment(
        loader=PackageLoader("convsearch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = folder.summary
    rows = shown_rows(summary.stages)
    rival = strongest(summary.stages)
    main_rows = list(dict.fromkeys(("raw", rival, *POLICIES)))
    ranks = {name: [row.rank for row in folder.outcomes[name].values()] for name in main_rows}
    mrr = {name: summary.stages[name].metrics["mrr"] for name in rows}
    intervals = {name: summary.stages[name].mrr_interval for name in rows}
    return environment.get_template("report.html.j2").render(
        summary=summary,
        compared=rows,
        main_rows=main_rows,
        strongest=rival,
        num_training_free=len(training_free(summary.stages)),
        headline=headline(summary),
        one_run_note=one_run_note(),
        metrics=metric_labels(summary),
        explained={name: explained(name) for name in rows},
        colours={name: charts.colour_of(name) for name in rows},
        policies=POLICIES,
        distill_terms=DISTILL_TERMS,
        ratios={name: _ratio(value, mrr["raw"]) for name, value in mrr.items()},
        findings=findings(summary),
        mrr_svg=Markup(charts.mrr_chart(mrr, intervals, depth=summary.mrr_depth)),
        ranks_svg=Markup(charts.rank_histogram(ranks)),
        curves=[(spec.title, Markup(svg)) for spec, svg in _curve_charts(folder.steps)],
        kinds=example_kinds(folder, rival),
        tallies=folder.tallies,
        next_steps=next_steps(run),
        breakdowns=folder.breakdowns,
        total_seconds=sum(summary.seconds.values()),
    )


def example_kinds(folder: RunFolder, rival: str) -> list[tuple[str, str, list[Example]]]:
    """Heading, explanation and examples of each column."""
    return [
        ("Largest gains", f"of grpo over {rival}, one a conversation", folder.gains),
        ("Drawn", "by the seed of the run, not by result", folder.examples),
        ("Largest losses", f"of grpo against {rival}, one a conversation", folder.losses),
    ]


def _harmless(value: object) -> object:
    """Control characters of texts are shown and not obeyed."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def metric_labels(summary: Summary) -> dict[str, str]:
    """What a table of the run calls each metric; MRR has its depth in its name."""
    return dict(zip(METRICS, (f"MRR@{summary.mrr_depth}", *_FIXED_LABELS), strict=True))


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "-"


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
