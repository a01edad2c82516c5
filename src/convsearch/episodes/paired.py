"""Two runs of agents over the same questions: how every measure differs, question by question.

Intervals of two means overlap long before their difference is uncertain, since both runs find the
same questions hard. So the differences themselves are drawn, by question.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from convsearch.episodes.evaluation import EpisodeScore, RunScore
from convsearch.errors import DataError
from convsearch.eval import bootstrap_intervals
from convsearch.eval.significance import randomisation_test

MEASURES = ("em", "f1", "all_gold", "searches", "queries", "documents")


@dataclass(frozen=True, kw_only=True)
class PairedRow:
    """One measure of both runs."""

    measure: str
    """all_gold: every gold passage was read, whenever."""
    first: float
    second: float
    difference: float
    """First less second."""
    interval: tuple[float, float]
    """95 % bootstrap interval of the difference, by question."""
    p_value: float
    """Two-sided, of the paired randomisation test."""


def paired_rows(
    first: RunScore, second: RunScore, *, seed: int = 0, max_documents: int | None = None
) -> list[PairedRow]:
    """A row for each measure that every question of both runs has.

    max_documents: answers count only where no more was read, and gold passages only among the first
    so many. Raises DataError where the runs are not over the same questions.
    """
    of_first, of_second = _by_qid(first, max_documents), _by_qid(second, max_documents)
    if set(of_first) != set(of_second):
        raise DataError(
            f"{first.name} and {second.name} are not over the same questions; compare runs of one "
            "data set and split"
        )
    if not of_first:
        raise DataError("there is no question to compare two runs on")
    names = [
        name
        for name in MEASURES
        if all(name in values for values in (*of_first.values(), *of_second.values()))
    ]
    differences = {
        qid: [{name: of_first[qid][name] - of_second[qid][name] for name in names}]
        for qid in of_first
    }
    intervals = bootstrap_intervals(differences, seed=seed)
    p_values = randomisation_test(
        {qid: [[row[name] for name in names] for row in rows] for qid, rows in differences.items()},
        seed=seed,
    )

    def mean(values: Mapping[str, Mapping[str, float]], name: str) -> float:
        return sum(row[name] for row in values.values()) / len(values)

    return [
        PairedRow(
            measure=name,
            first=mean(of_first, name),
            second=mean(of_second, name),
            difference=mean(of_first, name) - mean(of_second, name),
            interval=intervals[name],
            p_value=p_value,
        )
        for name, p_value in zip(names, p_values, strict=True)
    ]


def _by_qid(run: RunScore, limit: int | None) -> dict[str, dict[str, float]]:
    return {score.qid: _values(score, limit) for score in run.scores}


def _values(score: EpisodeScore, limit: int | None) -> dict[str, float]:
    within = float(limit is None or score.documents <= limit)
    values = {name: float(getattr(score, name)) for name in ("searches", "queries", "documents")}
    if score.em is not None and score.f1 is not None:
        values |= {"em": score.em * within, "f1": score.f1 * within}
    if score.has_gold:
        read = score.gold_rank is not None and (limit is None or score.gold_rank <= limit)
        values["all_gold"] = float(read)
    return values
