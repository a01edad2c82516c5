"""Charts of a comparison, as files: MRR by turn, ranks in bands, length of the query and gain."""

import io
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convsearch.files import atomic_write_bytes
from convsearch.pipeline.comparison import Method
from convsearch.report.charts import COLOURS, RANK_BINS, band_counts, band_labels, draw_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1d2025"
DEEPEST_BAND = RANK_BINS[-1][1]
MIN_TURN_QUERIES = 10
"""The first turn asked less often than this is drawn together with all later ones."""
LENGTH_BANDS = 8
"""Points of the line of means over query lengths, each of about equally many questions."""


def write_charts(
    folder: Path,
    methods: Sequence[Method],
    qids: Sequence[str],
    *,
    against: str | None = None,
    form: Literal["svg", "png"] = "svg",
) -> list[Path]:
    """Writes the charts into `folder`; returns their paths.

    qids: the turns that are compared. against: method that gains are counted from; the first one
    if not given. Raises DependencyError where matplotlib is not installed.
    """
    colours = _colours(methods)
    base = next((m for m in methods if m.name == against), methods[0])
    charts: dict[str, Callable[[Axes], None]] = {
        "mrr_by_turn": lambda axes: _mrr_by_turn(axes, methods, qids, colours),
        "rank_histogram": lambda axes: _rank_histogram(axes, methods, qids, colours),
    }
    if len(methods) > 1:
        charts["length_gain"] = lambda axes: _length_gain(axes, methods, base, qids, colours)
    drawn = {}
    for name, draw in charts.items():
        out = io.BytesIO()
        draw_chart(out, draw, name=name, ink=INK, form=form)
        drawn[folder / f"{name}.{form}"] = out.getvalue()
    for path, content in drawn.items():
        atomic_write_bytes(path, content)
    return list(drawn)


def turn_bands(methods: Sequence[Method], qids: Sequence[str]) -> dict[str, list[str]]:
    """Label of a turn -> its qids; the rare late turns share the last label, such as `9+`."""
    results = methods[0].seeds[0].results
    by_turn: dict[int, list[str]] = defaultdict(list)
    for qid in qids:
        turn = results[qid].turn
        if turn is not None:
            by_turn[turn].append(qid)
    bands: dict[str, list[str]] = {}
    turns = sorted(by_turn)
    for i, turn in enumerate(turns):
        if i and len(by_turn[turn]) < MIN_TURN_QUERIES:
            bands[f"{turn}+"] = [qid for later in turns[i:] for qid in by_turn[later]]
            break
        bands[str(turn)] = by_turn[turn]
    return bands


def _colours(methods: Sequence[Method]) -> dict[str, str]:
    """The report's colour of a name that has one, and the others in turn."""
    known = {m.name: COLOURS[m.name] for m in methods if m.name in COLOURS}
    free = cycle([c for c in COLOURS.values() if c not in known.values()] or COLOURS.values())
    return {m.name: known[m.name] if m.name in known else next(free) for m in methods}


def _mrr_by_turn(
    axes: "Axes", methods: Sequence[Method], qids: Sequence[str], colours: dict[str, str]
) -> None:
    bands = turn_bands(methods, qids)
    for method in methods:
        means = [
            statistics.fmean(method.value(q, "mrr") for q in found) for found in bands.values()
        ]
        axes.plot(list(bands), means, "o-", color=colours[method.name], label=method.name)
    ticks = [f"{label}\n{len(found)}" for label, found in bands.items()]
    axes.set_xticks(range(len(bands)), ticks)
    axes.set_xlabel("turn of the conversation, number of questions")
    axes.set_ylabel("MRR")
    axes.set_ylim(bottom=0)
    _legend(axes, len(methods))


def _rank_histogram(
    axes: "Axes", methods: Sequence[Method], qids: Sequence[str], colours: dict[str, str]
) -> None:
    labels = band_labels()
    if any(seed.topk > DEEPEST_BAND for method in methods for seed in method.seeds):
        labels[-1] = f"beyond {DEEPEST_BAND}"
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        ranks = [seed.results[q].rank for seed in method.seeds for q in qids]
        heights = [count / len(method.seeds) for count in band_counts(ranks)]
        at = [x + (i - (len(methods) - 1) / 2) * width for x in range(len(labels))]
        axes.bar(at, heights, width, color=colours[method.name], label=method.name)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("rank of the right passage")
    axes.set_ylabel("questions")
    _legend(axes, len(methods))


def _length_gain(
    axes: "Axes",
    methods: Sequence[Method],
    base: Method,
    qids: Sequence[str],
    colours: dict[str, str],
) -> None:
    others = [method for method in methods if method is not base]
    for method in others:
        words = {
            q: statistics.fmean(len(seed.results[q].query.split()) for seed in method.seeds)
            for q in qids
        }
        gains = {q: method.value(q, "mrr") - base.value(q, "mrr") for q in qids}
        colour = colours[method.name]
        axes.plot(
            [words[q] for q in qids],
            [gains[q] for q in qids],
            ".",
            color=colour,
            alpha=0.2,
            markersize=3,
        )
        points = length_means(words, gains)
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, "o-", color=colour, label=method.name, markersize=4)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("words of the query")
    axes.set_ylabel(f"gain in reciprocal rank over {base.name}")
    _legend(axes, len(others))


def length_means(words: Mapping[str, float], gains: dict[str, float]) -> list[tuple[float, float]]:
    """(mean words, mean gain) of bands of about equally many questions; equal lengths share one."""
    order = sorted(words, key=lambda q: (words[q], q))
    bands: dict[int, list[str]] = defaultdict(list)
    band_of: dict[float, int] = {}
    for place, qid in enumerate(order):
        band = band_of.setdefault(words[qid], place * LENGTH_BANDS // len(order))
        bands[band].append(qid)
    return [
        (
            statistics.fmean(words[q] for q in found),
            statistics.fmean(gains[q] for q in found),
        )
        for _, found in sorted(bands.items())
    ]


def _legend(axes: "Axes", columns: int) -> None:
    axes.legend(
        frameon=False,
        ncols=min(columns, 4),
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )
