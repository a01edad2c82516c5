"""The table of several evaluations of the same turns, as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.eval import METRICS
from convsearch.files import atomic_write
from convsearch.pipeline.breakdown import Group
from convsearch.pipeline.evaluation_files import MetricsRecord
from convsearch.visible import visible_line


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method and what it found."""

    name: str
    trained: bool
    folder: str
    record: MetricsRecord


TABLE_FILES = ("table.md", "table.json")


def write_table(out_dir: Path, rows: Sequence[Row], *, title: str) -> None:
    """Writes table.md and table.json. rows: in the order of the table, one at least."""
    with atomic_write(out_dir / "table.md") as out:
        out.write(markdown_table(rows, title=title))
    methods = [
        {"name": row.name, "trained": row.trained, "folder": row.folder, **row.record}
        for row in rows
    ]
    with atomic_write(out_dir / "table.json") as out:
        json.dump({"title": title, "methods": methods}, out, indent=2)
        out.write("\n")


def markdown_table(rows: Sequence[Row], *, title: str) -> str:
    """All metrics of each method, then MRR by turn and by topic switch where these are known."""
    first = rows[0].record
    labels = [first["labels"][name] for name in METRICS]
    lines = [
        f"# {visible_line(title)}",
        "",
        f"{first['num_queries']} queries; {first['note']}. Intervals: 95 %, bootstrap by "
        "conversation. *not answered* counts turns without a well-formed rewrite.",
        "",
        _line(["method", "trained", f"{labels[0]} (95 %)", *labels[1:], "not answered"]),
        _line(["---"] * (len(labels) + 3)),
    ]
    for row in rows:
        values = [f"{row.record['metrics'][name]:.3f}" for name in METRICS]
        values[0] += _in_brackets(row.record["mrr_interval_95"])
        failed = row.record["num_queries"] - row.record["answered"]
        lines.append(_line([row.name, "yes" if row.trained else "no", *values, str(failed)]))
    names = [row.name for row in rows]
    by_turn = [row.record["by_turn"] for row in rows]
    lines += _parts(f"{labels[0]} by turn of the conversation", names, by_turn)
    by_topic = [row.record["by_topic_switch"] for row in rows]
    return "\n".join([*lines, *_parts(f"{labels[0]} by topic switch", names, by_topic)]) + "\n"


def _parts(
    heading: str, names: Sequence[str], found: Sequence[Mapping[str, Group] | None]
) -> list[str]:
    first = found[0]
    if first is None:
        return []
    sizes = [f"{label} (n={group['num_queries']})" for label, group in first.items()]
    lines = ["", f"## {heading}", "", _line(["method", *sizes]), _line(["---"] * (len(sizes) + 1))]
    for name, groups in zip(names, found, strict=True):
        lines.append(_line([name, *(_cell(group) for group in (groups or {}).values())]))
    return lines


def _cell(group: Group) -> str:
    if group["metrics"] is None:
        return "none"
    return f"{group['metrics']['mrr']:.3f}{_in_brackets(group['mrr_interval_95'])}"


def _in_brackets(interval: tuple[float, float] | None) -> str:
    return f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
