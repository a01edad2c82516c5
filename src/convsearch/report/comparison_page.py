"""A comparison as tables: plain text, Markdown, LaTeX or CSV. Figures are per cent, but in CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from convsearch.eval import RELEVANCE_LEVEL
from convsearch.eval.published import PublishedRow
from convsearch.pipeline.comparison import Change, Comparison, Interval, MethodResult, PairResult
from convsearch.visible import visible, visible_line

Format = Literal["text", "markdown", "latex", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)
PUBLISHED = "published"
SHOWN_CHARS = 240
"""Of a query among the examples."""
_LABELS = {
    "ndcg_cut_3": "NDCG@3",
    "recall_5": "R@5",
    "recall_10": "R@10",
    "recall_20": "R@20",
    "recall_100": "R@100",
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Numbers of others that stand beside ours."""

    table: str
    rows: tuple[PublishedRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; the first column is left-aligned, the others to the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_comparison(
    comparison: Comparison, style: Format, published: Published | None = None
) -> str:
    """The whole comparison in one format, ending in a line break."""
    if style == "csv":
        return _csv(comparison, published)
    tables = [_means(comparison, published)]
    if comparison.pairs:
        tables.append(_pairs(comparison))
    notes = _notes(comparison, published)
    if style == "latex":
        comments = [f"% {visible_line(note)}" for note in notes]
        return "\n".join([*comments, *map(_latex, tables)]) + "\n"
    if style == "markdown":
        parts = [*map(_markdown, tables), "\n".join(f"* {_md(note)}" for note in notes)]
        return "\n\n".join([*parts, *_changes(comparison.changes, _md, "**{}**")]) + "\n"
    parts = [*map(_text, tables), visible("\n".join(notes))]
    return "\n\n".join([*parts, *_changes(comparison.changes, visible, "{}")]) + "\n"


def metric_label(name: str, topk: int) -> str:
    """Name of a metric in a table; MRR is named by its depth."""
    return f"MRR@{topk}" if name == "mrr" else _LABELS[name]


def _means(comparison: Comparison, published: Published | None) -> Table:
    labels = [metric_label(name, comparison.topk) for name in comparison.metrics]
    rows = [_mean_row(result, comparison) for result in comparison.methods]
    for row in published.rows if published else ():
        values = (row.values.get(name) for name in comparison.metrics)
        cells = ("-" if value is None else f"{value:.1f}" for value in values)
        rows.append((f"{row.method} ({PUBLISHED})", *cells, "", ""))
    where = "/".join(filter(None, (comparison.dataset, comparison.split)))
    return Table(
        title=f"Means over {where or 'all questions'}, per cent",
        header=("method", *labels, "MRR 95 %", "not well-formed"),
        rows=tuple(rows),
    )


def _mean_row(result: MethodResult, comparison: Comparison) -> tuple[str, ...]:
    cells = []
    for name in comparison.metrics:
        spread = f" ± {100 * result.sds[name]:.2f}" if result.sds else ""
        cells.append(f"{100 * result.means[name]:.2f}{spread}")
    seeds = f" ({result.num_seeds} seeds)" if result.num_seeds > 1 else ""
    interval = _interval(result.mrr_interval, ".2f")
    return (f"{result.name}{seeds}", *cells, interval, str(result.num_not_ok))


def _interval(interval: Interval | None, form: str) -> str:
    """In points; a dash where there is none."""
    return " to ".join(f"{100 * bound:{form}}" for bound in interval) if interval else "-"


def _pairs(comparison: Comparison) -> Table:
    return Table(
        title="Paired differences, points",
        header=("pair", "metric", "difference", "95 %", "p", "p Holm", "win", "tie", "loss"),
        rows=tuple(
            (
                f"{pair.method} - {pair.against}",
                metric_label(pair.metric, comparison.topk),
                f"{100 * pair.difference:+.2f}",
                _interval(pair.interval, "+.2f"),
                f"{pair.p:.4f}",
                f"{pair.p_holm:.4f}",
                *(str(count) for count in (pair.wins, pair.ties, pair.losses)),
            )
            for pair in comparison.pairs
        ),
    )


def _notes(comparison: Comparison, published: Published | None) -> list[str]:
    engines = ", ".join(name or "not recorded" for name in comparison.engines)
    notes = [f"Searched: {engines}. Depth {comparison.topk}. Convention: {comparison.convention}."]
    if comparison.relevance_level != RELEVANCE_LEVEL:
        notes.append(
            f"For MRR and recall a passage is relevant from grade {comparison.relevance_level} on; "
            "NDCG takes all grades."
        )
    if comparison.pairs:
        notes.append(
            f"Paired on {comparison.num_paired} questions. p is two-sided, from a randomisation "
            f"test whose unit is the {comparison.unit}: {comparison.num_units} of them, "
            f"{_flips(comparison)}. p Holm is corrected for all tests of this table "
            f"({len(comparison.pairs)})."
        )
    if any(result.sds for result in comparison.methods):
        notes.append(
            "± is the standard deviation over seeds; their pairs are means of each question over "
            "the seeds."
        )
    if published:
        sources = "; ".join(dict.fromkeys(f"{r.source} [{r.trust}]" for r in published.rows))
        notes.append(f"Rows marked {PUBLISHED} are {published.table} of: {sources}.")
        notes += published.notes
    return notes


def _flips(comparison: Comparison) -> str:
    if 2**comparison.num_units <= comparison.permutations:
        return f"all {2**comparison.num_units} sign flips"
    return f"{comparison.permutations} sign flips drawn by seed {comparison.seed}"


def _changes(changes: Sequence[Change], escape: Callable[[str], str], heading: str) -> list[str]:
    """A paragraph for each side of each pair."""
    groups: dict[tuple[str, str, bool], list[Change]] = {}
    for change in changes:
        groups.setdefault((change.method, change.against, change.gain > 0), []).append(change)
    parts = []
    for (method, against, gained), members in groups.items():
        word = "gains" if gained else "losses"
        title = f"Largest {word} of {method} over {against} (reciprocal rank)"
        lines = [heading.format(escape(title)), ""] if heading != "{}" else [title]
        for change in members:
            asked = visible_line(change.question or "(question not at hand; name --dataset)")
            lines.append(f"* {change.gain:+.3f} {escape(change.qid)}: {escape(asked)}")
            for name, query, ranks in zip(
                (method, against), change.queries, change.ranks, strict=True
            ):
                shown = ", ".join("not found" if r is None else str(r) for r in ranks)
                lines.append(f"    * {escape(name)}, rank {shown}: {escape(_line(query))}")
        parts.append("\n".join(lines))
    return parts


def _line(query: str) -> str:
    """On one line; of a long query the end, where the question stands."""
    text = visible_line(query)
    cut = text[-SHOWN_CHARS:].partition(" ")[2]
    return text if len(text) <= SHOWN_CHARS else f"({len(text.split())} words) ... {cut}"


def _text(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    lines = [visible_line(table.title)]
    for row in (table.header, *table.rows):
        first, *rest = map(visible_line, row)
        cells = [
            first.ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    lines = [f"**{_md(table.title)}**", ""]
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    for row in (table.header, rule, *table.rows):
        lines.append(f"| {' | '.join(map(_md, row))} |")
    return "\n".join(lines)


def _md(text: str) -> str:
    text = visible_line(text)
    for sign in ("\\", "|", "*", "_", "`", "["):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latex(table: Table) -> str:
    columns = "l" + "r" * (len(table.header) - 1)
    lines = [f"% {visible_line(table.title)}", rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    for i, row in enumerate((table.header, *table.rows)):
        lines.append(" & ".join(map(_tex, row)) + r" \\" + (r" \hline" if i == 0 else ""))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in visible_line(text))


def _csv(comparison: Comparison, published: Published | None) -> str:
    """One long table; `kind` is mean, pair or published, values are fractions."""
    out = io.StringIO()
    names: tuple[str, ...] = (
        "kind", "method", "against", "metric", "value", "sd", "seeds", "low", "high", "p",
        "p_holm", "wins", "ties", "losses", "source",
    )  # fmt: skip
    writer: csv.DictWriter[str] = csv.DictWriter(out, names, lineterminator="\n", restval="")
    writer.writeheader()
    for result in comparison.methods:
        for name in comparison.metrics:
            writer.writerow(_csv_mean(result, name))
    for pair in comparison.pairs:
        writer.writerow(_csv_pair(pair))
    for row in published.rows if published else ():
        for name in comparison.metrics:
            value = row.values.get(name)
            if value is not None:
                source = f"{row.source} [{row.trust}]"
                record = {"kind": PUBLISHED, "method": row.method, "metric": name}
                writer.writerow({**record, "value": round(value / 100, 6), "source": source})
    return out.getvalue()


def _csv_mean(result: MethodResult, name: str) -> dict[str, object]:
    low, high = (result.mrr_interval if name == "mrr" else None) or ("", "")
    return {
        "kind": "mean",
        "method": result.name,
        "metric": name,
        "value": result.means[name],
        "sd": result.sds[name] if result.sds else "",
        "seeds": result.num_seeds,
        "low": low,
        "high": high,
    }


def _csv_pair(pair: PairResult) -> dict[str, object]:
    low, high = pair.interval or ("", "")
    return {
        "kind": "pair",
        "method": pair.method,
        "against": pair.against,
        "metric": pair.metric,
        "value": pair.difference,
        "low": low,
        "high": high,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "wins": pair.wins,
        "ties": pair.ties,
        "losses": pair.losses,
    }
