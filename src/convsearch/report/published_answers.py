"""Our answers on the seven question sets beside published ones, each with source and trust."""

from collections.abc import Sequence

from convsearch.episodes.evaluation import RunScore
from convsearch.eval.published import QA_SETS, published_table


def beside_published(runs: Sequence[RunScore]) -> str:
    """A table in Markdown: exact match in per cent, our runs first, then what others published,
    marked so, and the warnings about protocols. Sets that a run lacks are blank; so is its mean
    unless it has all seven."""
    table = published_table(QA_SETS)
    sets = list(table.rows[0].values)
    lines = [
        f"{table.title}, per cent",
        "",
        f"| method | {' | '.join(sets)} | source |",
        f"|{' --- |' * (len(sets) + 2)}",
    ]
    lines += [_line(run.name, _ours(run, sets), "measured here") for run in runs]
    for row in table.rows:
        note = f"; {row.note}" if row.note else ""
        lines.append(
            _line(
                f"{row.method} (*published*)",
                list(row.values.values()),
                f"{row.source} [{row.trust}]{note}",
            )
        )
    return "\n".join([*lines, "", *table.notes])


def _ours(run: RunScore, sets: Sequence[str]) -> list[float | None]:
    """Values by set, and their mean at the end."""
    values: list[float | None] = []
    for name in sets[:-1]:
        found = [s.em for s in run.scores if s.dataset == name and s.em is not None]
        values.append(100 * sum(found) / len(found) if found else None)
    known = [value for value in values if value is not None]
    return [*values, sum(known) / len(known) if len(known) == len(values) else None]


def _line(name: str, values: Sequence[float | None], source: str) -> str:
    shown = ("" if value is None else f"{value:.1f}" for value in values)
    return f"| {name} | {' | '.join(shown)} | {source} |"
