"""The charts of the report as inline SVG that follows the page's colours, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Literal

from convsearch.errors import DependencyError, install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "raw": "#8a8f98",
    "history": "#b98a2f",
    "base": "#5b8bd0",
    "sft": "#2fa088",
    "grpo": "#cf5a3d",
}
"""Mid tones that read on white and on near-black."""
_OTHER = "#9a6fb5"
"""Of every other row."""
_INK = "#010203"
"""Drawn with this colour, then replaced by `currentColor`, so that text follows the page."""
RANK_BINS = ((1, 1), (2, 3), (4, 5), (6, 10), (11, 20), (21, 100))
SIZE_INCHES = (5.2, 3.0)
_FONT_POINTS = 9
_PAGE_SIZE_INCHES = (4.7, 3.2)
_PAGE_FONT_POINTS = 12
"""A page shows a chart as narrow as a telephone; its text must be legible there."""

Interval = tuple[float, float]
Curve = Sequence[tuple[float, float]]
"""Points (x, y) in order of x."""


def colour_of(name: str) -> str:
    """The colour of a row; one for all rows that have none of their own."""
    return COLOURS.get(name, _OTHER)


def mrr_chart(mrr: Mapping[str, float], intervals: Mapping[str, Interval], *, depth: int) -> str:
    """One point with its 95 % interval for each query source."""

    def draw(axes: "Axes") -> None:
        names = list(mrr)
        for row, name in enumerate(names):
            low, high = intervals[name]
            axes.plot([low, high], [row, row], color=colour_of(name), linewidth=3)
            axes.plot([mrr[name]], [row], "o", color=colour_of(name), markersize=8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"MRR@{depth} with 95 % interval")

    return _svg("mrr", draw)


def rank_histogram(ranks: Mapping[str, Sequence[int | None]]) -> str:
    """How many queries found the right passage in which band of ranks, for each source."""

    def draw(axes: "Axes") -> None:
        labels = band_labels()
        width = 0.8 / max(len(ranks), 1)
        for i, (name, values) in enumerate(ranks.items()):
            counts = band_counts(values)
            at = [x + (i - (len(ranks) - 1) / 2) * width for x in range(len(labels))]
            axes.bar(at, counts, width, color=colour_of(name), label=name)
        axes.set_xticks(range(len(labels)), labels, fontsize=10)
        axes.set_xlabel("rank of the right passage")
        axes.set_ylabel("queries")
        axes.legend(frameon=False, ncols=2, fontsize=10, loc="lower left", bbox_to_anchor=(0, 1))

    return _svg("ranks", draw)


def curve_chart(name: str, curves: Mapping[str, Curve], *, ylabel: str) -> str:
    """Lines over training steps; a legend where there is more than one. The axis begins at 0."""

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        palette = list(COLOURS.values())[::-1]
        for (label, points), colour in zip(curves.items(), palette, strict=False):
            xs, ys = zip(*points, strict=True)
            marker = "o" if len(points) < 3 else ""
            axes.plot(xs, ys, color=colour, label=label, linewidth=1.6, marker=marker)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(ylabel)
        axes.set_ylim(bottom=min(0.0, *(y for points in curves.values() for _, y in points)))
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=10)

    return _svg(name, draw)


def band_labels() -> list[str]:
    """The bands of ranks as text, and one for what was not found."""
    return [str(a) if a == b else f"{a}-{b}" for a, b in RANK_BINS] + ["not found"]


def band_counts(ranks: Sequence[int | None]) -> list[int]:
    """How many ranks lie in each band of `band_labels`."""
    counts = [sum(1 for r in ranks if r is not None and a <= r <= b) for a, b in RANK_BINS]
    return [*counts, len(ranks) - sum(counts)]


def draw_chart(
    out: IO[bytes],
    draw: "Callable[[Axes], None]",
    *,
    name: str,
    ink: str,
    form: Literal["svg", "png"] = "svg",
    transparent: bool = False,
    size: tuple[float, float] = SIZE_INCHES,
    font_size: int = _FONT_POINTS,
) -> None:
    """Writes one chart in the style of the project. ink: colour of text and frame. size: width and
    height in inches; font_size: in points.

    The same drawing gives the same bytes. Raises DependencyError where matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            f"matplotlib is not installed; run {install_command('report')}"
        ) from None
    style: dict = {
        "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
        "svg.hashsalt": name,  # same input, same bytes, and no id twice on one page
        "font.family": "sans-serif",
        "font.size": font_size,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink
        ),
    }
    no_date = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=COLOURS["raw"], alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(out, format=form, dpi=200, transparent=transparent, metadata=no_date)


def _svg(name: str, draw: "Callable[[Axes], None]") -> str:
    """The chart as an element of the page. Raises DependencyError without matplotlib."""
    out = io.BytesIO()
    draw_chart(
        out,
        draw,
        name=name,
        ink=_INK,
        transparent=True,
        size=_PAGE_SIZE_INCHES,
        font_size=_PAGE_FONT_POINTS,
    )
    return _inline(out.getvalue().decode(), name)


def _inline(svg: str, name: str) -> str:
    """The bare element, scalable, with text colour from the page and ids of its own."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
