"""Charts of search agents, as files: what more queries find, and what they cost.

After ExpandSearch (arXiv 2510.10009), as far as retrieval is concerned: recall against the number
of queries for each depth, and against the documents that were read for it; and answers of finished
runs against documents and tokens.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convsearch.agent.ablation import AblationRow, EqualRow
from convsearch.episodes.evaluation import RunScore
from convsearch.files import atomic_write_bytes
from convsearch.report.charts import COLOURS, draw_chart
from convsearch.report.comparison_charts import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Form = Literal["svg", "png"]
Point = tuple[float, float]
_COSTS = {
    "documents": "documents read a question",
    "tokens": "tokens a question, of model and results",
}


def write_ablation_charts(
    folder: Path,
    rows: Sequence[AblationRow],
    equal: Sequence[EqualRow],
    *,
    top: int,
    form: Form = "svg",
) -> list[Path]:
    """Writes the charts of an ablation without a model; returns their paths.

    Raises DependencyError where matplotlib is not installed.
    """
    by_k: dict[str, list[AblationRow]] = {}
    for row in rows:
        by_k.setdefault(f"k = {row.k}", []).append(row)
    by_limit: dict[str, list[EqualRow]] = {}
    for row in equal:
        by_limit.setdefault(f"{row.documents} documents", []).append(row)

    def recall_by_n(axes: "Axes") -> None:
        _lines(axes, {k: [(r.n, r.all_gold_read) for r in found] for k, found in by_k.items()})
        _label(axes, "queries (n)", "all gold in what was read", len(by_k))

    def top_by_n(axes: "Axes") -> None:
        _lines(axes, {k: [(r.n, r.all_gold_top) for r in found] for k, found in by_k.items()})
        _label(axes, "queries (n)", f"all gold in the fused top {top}", len(by_k))

    def recall_by_documents(axes: "Axes") -> None:
        _lines(
            axes,
            {k: [(r.mean_documents, r.all_gold_read) for r in found] for k, found in by_k.items()},
        )
        single = sorted({(r.mean_documents, r.single_same_documents) for r in rows})
        xs, ys = zip(*single, strict=True)
        axes.plot(xs, ys, ":", color=INK, label="one query")
        _label(axes, "documents read a question", "all gold in what was read", len(by_k) + 1)

    def equal_by_n(axes: "Axes") -> None:
        _lines(axes, {k: [(r.n, r.all_gold) for r in found] for k, found in by_limit.items()})
        _label(axes, "queries (n)", "all gold within as many documents", 2)

    return _write(
        folder,
        {
            "recall_by_n": recall_by_n,
            "top_by_n": top_by_n,
            "recall_by_documents": recall_by_documents,
            "equal_documents_by_n": equal_by_n,
        },
        form,
    )


def write_score_charts(folder: Path, runs: Sequence[RunScore], *, form: Form = "svg") -> list[Path]:
    """Writes EM with its interval against documents and tokens, a colour for each strategy and
    squeezer; returns the paths. Empty where no run has answers to compare with.

    Raises DependencyError where matplotlib is not installed.
    """
    scored = [run for run in runs if run.em_interval is not None]
    if not scored:
        return []
    groups = list(dict.fromkeys(_group(run) for run in scored))
    colours = dict(zip(groups, cycle(COLOURS.values()), strict=False))

    def by_cost(cost: str) -> "Callable[[Axes], None]":
        def draw(axes: "Axes") -> None:
            named: set[str] = set()
            # by turns above and below: neighbours may cost nearly the same
            places = sorted(range(len(scored)), key=lambda i: cost_of(scored[i], cost))
            for i, run in enumerate(scored):
                low, high = run.em_interval or (0.0, 0.0)
                group, at = _group(run), cost_of(run, cost)
                axes.plot([at, at], [low, high], color=colours[group], linewidth=1)
                axes.plot(
                    [at],
                    [run.means["em"]],
                    "o",
                    color=colours[group],
                    label=None if group in named else group,
                )
                axes.annotate(
                    run.name,
                    (at, run.means["em"]),
                    (4, -10 if places.index(i) % 2 else 4),
                    textcoords="offset points",
                    fontsize=7,
                )
                named.add(group)
            _label(axes, _COSTS[cost], "EM with 95 % interval", 1)

        return draw

    return _write(folder, {f"em_by_{cost}": by_cost(cost) for cost in _COSTS}, form)


def write_sweep_charts(
    folder: Path, curves: Mapping[str, Mapping[str, Sequence[Point]]], *, form: Form = "svg"
) -> list[Path]:
    """Writes a chart for each measure (its name -> line -> points of n and value).

    Raises DependencyError where matplotlib is not installed.
    """

    def by_n(measure: str) -> "Callable[[Axes], None]":
        def draw(axes: "Axes") -> None:
            _lines(axes, curves[measure])
            _label(axes, "queries (n)", measure.replace("_", " "), 2)

        return draw

    return _write(folder, {f"{measure}_by_n": by_n(measure) for measure in curves}, form)


def cost_of(run: RunScore, cost: str) -> float:
    """Mean documents, or mean tokens of model and results together, of a question."""
    if cost == "documents":
        return run.means["documents"]
    return run.means["model_tokens"] + run.means["tool_tokens"]


def _group(run: RunScore) -> str:
    squeezer = run.labels.get("squeezer")
    return f"{run.labels['strategy']}, squeezer {squeezer if squeezer else 'not told'}"


def _lines(axes: "Axes", lines: Mapping[str, Iterable[Point]]) -> None:
    for (name, points), colour in zip(lines.items(), cycle(COLOURS.values()), strict=False):
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, "o-", color=colour, label=name, markersize=4)


def _label(axes: "Axes", x: str, y: str, columns: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.legend(
        frameon=False, ncols=min(columns, 4), fontsize=8, loc="lower left", bbox_to_anchor=(0, 1)
    )


def _write(folder: Path, charts: "Mapping[str, Callable[[Axes], None]]", form: Form) -> list[Path]:
    drawn = {}
    for name, draw in charts.items():
        out = io.BytesIO()
        draw_chart(out, draw, name=name, ink=INK, form=form)
        drawn[folder / f"{name}.{form}"] = out.getvalue()
    for path, content in drawn.items():
        atomic_write_bytes(path, content)
    return list(drawn)
