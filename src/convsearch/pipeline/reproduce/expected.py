"""What a reproduction should show, and how far from it is still the same result.

Two runs of the same recipe differ by what was drawn in decoding and by what the seed of the
training changed. The paper gives neither, so the tolerances are this project's judgement:

* decoding at temperature 0.7: questions are independent given the model, and a value between 0
  and 1 with mean m varies by at most m(1 - m), so 95 % of the means over n questions lie within
  1.96 sqrt(m(1 - m) / n). The questions are the same ones, so their own spread does not count;
* seed of the training: twice 0.8 points, the standard deviation that two papers report for 3B
  search agents trained by reinforcement (SD-Search: 0.008, AutoRefine: 0.004 to 0.008, of exact
  match; none is known for query rewriting);
* queries that are not sampled: 0.5 points, for analyzers and versions of the corpus;
* models that are only prompted, and the sizes of what they distil: none, as the prompt is not the
  paper's text.
"""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.eval.published import published_rows
from convsearch.pipeline.evaluation_folder import read_evaluation
from convsearch.pipeline.reproduce.steps import Source, distilled, evaluation_of
from convsearch.pipeline.reproduce.tables import Column, Plan, Size

FIXED_POINTS = 0.5
SEED_SD_POINTS = 0.8
Z_95 = 1.959964
EXAMPLES = "examples"
"""The metric of sizes; all others are per cent."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One cell."""

    column: str
    """`dataset/engine`; for a size the data set alone."""
    method: str
    metric: str
    value: float
    """Per cent, as published; a number of examples where that is the metric."""
    tolerance: float | None
    """Points; None where the number is for orientation, as the prompt is not the paper's."""
    measured: float | None = None
    """As `value`, mean over the seeds that are there."""

    @property
    def published_text(self) -> str:
        """`value` as it was printed."""
        return f"{self.value:,.0f}" if self.metric == EXAMPLES else f"{self.value:.1f}"

    @property
    def measured_text(self) -> str:
        """`measured`, means with one figure more than was printed; empty where there is none."""
        if self.measured is None:
            return ""
        return f"{self.measured:,.0f}" if self.metric == EXAMPLES else f"{self.measured:.2f}"

    @property
    def verdict(self) -> str:
        """What the measurement says."""
        if self.measured is None:
            return "not yet measured"
        if self.tolerance is None:
            return "for orientation"
        away = abs(self.measured - self.value) > self.tolerance
        return "outside the tolerance" if away else "within the tolerance"


def expected_numbers(plan: Plan, *, seeds: int, root: Path | None = None) -> list[Expected]:
    """Every published cell of the plan. root: where its evaluations are looked for; None for no
    look. Raises what reading a damaged evaluation raises."""
    return [_size(plan.table, size, root) for size in plan.sizes] + [
        cell
        for column in plan.columns
        for source in column.sources
        if source.published
        for cell in _cells(plan.table, column, source, seeds, root)
    ]


def tolerance_points(value: float, kind: str, num_turns: int) -> float | None:
    """Points within which a measurement is the same result (see above).

    value: per cent. kind: `fixed`, `trained` or `prompted`, whose prompt is not the paper's and has
    no tolerance.
    """
    if kind == "prompted":
        return None
    if kind == "fixed":
        return FIXED_POINTS
    mean = value / 100
    decoding = 100 * Z_95 * math.sqrt(mean * (1 - mean) / num_turns)
    return math.hypot(decoding, 2 * SEED_SD_POINTS)


def _size(table: str, size: Size, root: Path | None) -> Expected:
    rows = published_rows(table, size.corpus.name, "")
    row = next(row for row in rows if row.method == size.model.title)
    passport = root / distilled(size.model, size.corpus) / "run.json" if root else None
    [(metric, value)] = row.values.items()
    if value is None:
        raise DataError(f"{table}: no size for {row.method} on {row.dataset}")
    return Expected(
        column=size.corpus.name,
        method=f"{size.model.label}-distill",
        metric=metric,
        value=value,
        tolerance=None,
        measured=_kept(passport) if passport and passport.is_file() else None,
    )


def _kept(passport: Path) -> int:
    try:
        return int(json.loads(passport.read_text(encoding="utf-8"))["counts"]["kept"])
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f'{passport}: not of a finished self-distillation; remove it and run "convsearch '
            'distill" again'
        ) from None


def _cells(
    table: str, column: Column, source: Source, seeds: int, root: Path | None
) -> list[Expected]:
    corpus, engine = column.corpus, column.engine
    rows = published_rows(table, corpus.name, engine)
    row = next(row for row in rows if row.method == source.published)
    measured = _measured(column, source, seeds, root) if root else {}
    return [
        Expected(
            column=f"{corpus.name}/{engine}",
            method=source.method,
            metric=metric,
            value=value,
            tolerance=tolerance_points(value, source.kind, corpus.test_turns),
            measured=measured.get(metric),
        )
        for metric, value in row.values.items()
        if value is not None
    ]


def _measured(column: Column, source: Source, seeds: int, root: Path) -> dict[str, float]:
    folders = [
        root / evaluation_of(source, column.corpus, column.engine, seed)
        for seed in source.seeds(seeds)
    ]
    found = [read_evaluation(folder) for folder in folders if (folder / "run.json").is_file()]
    if not found:
        return {}
    return {
        name: 100 * statistics.fmean(folder.metrics[name] for folder in found)
        for name in found[0].metrics
    }
