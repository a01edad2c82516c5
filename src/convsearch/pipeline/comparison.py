"""Evaluations side by side: means, paired differences with their significance, the questions that
gained and lost most. Pairs are turns; what is exchangeable is a conversation.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from convsearch.errors import ConfigError, DataError
from convsearch.eval import METRICS, bootstrap_interval
from convsearch.eval.significance import PERMUTATIONS, holm, randomisation_test
from convsearch.pipeline.evaluation_folder import EvaluationFolder, QueryResult

DEFAULT_METRICS = ("mrr", "ndcg_cut_3", "recall_10", "recall_100")
"""Those of the paper's tables."""
_EQUAL = 1e-12
Unit = Literal["conversation", "turn"]
Interval = tuple[float, float]
"""Lower and upper bound."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method: an evaluation, or several that differ in nothing but the seed."""

    name: str
    seeds: tuple[EvaluationFolder, ...]

    def value(self, qid: str, metric: str) -> float:
        """Mean of one turn over the seeds."""
        return statistics.fmean(seed.results[qid].metrics[metric] for seed in self.seeds)


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """A line of the table of means."""

    name: str
    means: dict[str, float]
    """Mean over the seeds of what each `metrics.json` says."""
    sds: dict[str, float] | None
    """Standard deviation over the seeds (n - 1); None for a single one."""
    num_seeds: int
    mrr_interval: Interval | None
    """95 % bootstrap interval by unit, of the mean over seeds of each turn; None for one unit."""
    num_not_ok: int
    """Turns that were searched with the raw question, all seeds together."""


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """One metric of `method` against `against`; positive is in favour of `method`."""

    method: str
    against: str
    metric: str
    difference: float
    interval: Interval | None
    """95 % bootstrap interval of the difference, by unit; None for one unit."""
    p: float
    """Two-sided, of the randomisation test."""
    p_holm: float
    """Corrected for all tests of this comparison."""
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """One question whose reciprocal rank differs much between two methods."""

    method: str
    against: str
    qid: str
    question: str | None
    """None where the turns are not at hand."""
    gain: float
    queries: tuple[str, str]
    """Of `method` and of `against`; the first seed's."""
    ranks: tuple[tuple[int | None, ...], tuple[int | None, ...]]
    """Of both, one for each seed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that the tables show."""

    dataset: str | None
    split: str | None
    engines: tuple[str | None, ...]
    topk: int
    convention: str
    relevance_level: int
    num_paired: int
    """Turns that every method was compared on."""
    num_units: int
    unit: Unit
    permutations: int
    seed: int
    metrics: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    pairs: tuple[PairResult, ...]
    changes: tuple[Change, ...]
    """For each pair the largest gains, best first, then the largest losses, worst first."""


def check_comparable(methods: Sequence[Method], *, allow_different_engines: bool = False) -> None:
    """Raises ConfigError that says in what two folders differ and may not."""
    folders = [folder for method in methods for folder in method.seeds]
    first = folders[0]
    for other in folders[1:]:
        pair = f"{first.folder} and {other.folder}"
        for what, a, b in (
            ("data set", first.dataset, other.dataset),
            ("split", first.split, other.split),
            ("relevance judgements", *(f.input_hash("qrels.trec") for f in (first, other))),
        ):
            if a is not None and b is not None and a != b:
                raise ConfigError(f"{pair} differ in their {what} ({a}, {b}); nothing is paired")
        if first.topk != other.topk:
            raise ConfigError(
                f"{pair} rank to different depths ({first.topk}, {other.topk}); evaluate both with "
                "one --topk"
            )
        if first.relevance_level != other.relevance_level:
            raise ConfigError(
                f"{pair} call passages relevant from different grades on "
                f"({first.relevance_level}, {other.relevance_level}); evaluate both with one "
                "--relevance-level"
            )
        if first.convention != other.convention:
            raise ConfigError(
                f"{pair} average by different conventions ({first.convention}, "
                f"{other.convention}); evaluate both with or both without --paper_compat"
            )
        if first.results.keys() != other.results.keys():
            odd = min(first.results.keys() ^ other.results.keys())
            raise ConfigError(
                f"{pair} hold different questions ({len(first.results)} and {len(other.results)}; "
                f"qid {odd!r} is in one only); evaluate both on one split"
            )
        if first.engine != other.engine and not allow_different_engines:
            raise ConfigError(
                f"{pair} were searched with different engines ("
                f"{first.engine or 'not recorded'}, {other.engine or 'not recorded'}); "
                "if they are the same index, or that is the question, give "
                "--allow-different-engines"
            )


def compare(
    methods: Sequence[Method],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    against: str | None = None,
    unit: Unit = "conversation",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    num_changes: int = 5,
    questions: Mapping[str, str] | None = None,
) -> Comparison:
    """Compares every later method with every earlier one, or all with `against` alone.

    The methods must have passed `check_comparable`. Under paper_compat only turns that every
    folder answered are paired. questions: texts for the changes. Raises ConfigError for an unknown
    or repeated name or metric, DataError where no turn is left to pair.
    """
    _check_names(methods, metrics, against)
    qids = paired_qids(methods)
    units = _units(methods[0], qids, unit)
    wanted = [
        (later, earlier)
        for earlier, later in itertools.combinations(methods, 2)
        if against in (None, later.name, earlier.name)
    ]
    wanted = [(b, a) if a.name == against else (a, b) for a, b in wanted]
    raw = [
        result
        for method, other in wanted
        for result in _pair(method, other, units, metrics, permutations, seed)
    ]
    corrected = holm([result["p"] for result in raw])
    first = methods[0].seeds[0]
    return Comparison(
        dataset=first.dataset,
        split=first.split,
        engines=tuple(dict.fromkeys(f.engine for m in methods for f in m.seeds)),
        topk=first.topk,
        convention=first.convention,
        relevance_level=first.relevance_level,
        num_paired=len(qids),
        num_units=len(units),
        unit=unit,
        permutations=permutations,
        seed=seed,
        metrics=tuple(metrics),
        methods=tuple(_method_result(method, units, seed) for method in methods),
        pairs=tuple(PairResult(**r, p_holm=p) for r, p in zip(raw, corrected, strict=True)),
        changes=tuple(
            change
            for method, other in wanted
            for change in _changes(method, other, qids, num_changes, questions or {})
        ),
    )


def _check_names(methods: Sequence[Method], metrics: Sequence[str], against: str | None) -> None:
    names = [method.name for method in methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two methods are called {twice!r}; name them: name=FOLDER")
    if against is not None and against not in names:
        raise ConfigError(f"there is no method {against!r}; choose one of {', '.join(names)}")
    unknown = next((name for name in metrics if name not in METRICS), None)
    if unknown is not None or not metrics or len(set(metrics)) < len(metrics):
        raise ConfigError(
            f"metrics must be different ones of {', '.join(METRICS)}; got {', '.join(metrics)}"
        )


def paired_qids(methods: Sequence[Method]) -> list[str]:
    """The turns that are compared: all, or under paper_compat those that every folder answered.

    Raises DataError where none is left.
    """
    first = methods[0].seeds[0]
    if first.convention == "all_queries":
        return list(first.results)
    folders = [folder for method in methods for folder in method.seeds]
    qids = [q for q in first.results if all(f.results[q].status == "ok" for f in folders)]
    if not qids:
        raise DataError("no question was answered in every folder, so nothing can be paired")
    return qids


def _units(method: Method, qids: Sequence[str], unit: Unit) -> dict[str, list[str]]:
    """Unit -> its qids."""
    results = method.seeds[0].results
    units: dict[str, list[str]] = {}
    for qid in qids:
        name = qid if unit == "turn" else results[qid].conv_id
        if name is None:
            raise DataError(
                f"{method.seeds[0].folder}: the conversation of qid {qid!r} is not known; evaluate "
                "with the turns at hand, or give --unit turn"
            )
        units.setdefault(name, []).append(qid)
    return units


def _method_result(method: Method, units: Mapping[str, Sequence[str]], seed: int) -> MethodResult:
    by_unit = {name: [method.value(q, "mrr") for q in qids] for name, qids in units.items()}
    several = len(method.seeds) > 1
    values = {name: [f.metrics[name] for f in method.seeds] for name in METRICS}
    return MethodResult(
        name=method.name,
        means={name: statistics.fmean(found) for name, found in values.items()},
        sds={n: statistics.stdev(found) for n, found in values.items()} if several else None,
        num_seeds=len(method.seeds),
        mrr_interval=_interval(by_unit, seed),
        num_not_ok=sum(f.counts["num_queries"] - f.counts["answered"] for f in method.seeds),
    )


def _interval(by_unit: Mapping[str, Sequence[float]], seed: int) -> Interval | None:
    """Of one unit every draw is the same, which would look like certainty."""
    return bootstrap_interval(by_unit, seed=seed) if len(by_unit) > 1 else None


def _pair(
    method: Method,
    against: Method,
    units: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    permutations: int,
    seed: int,
) -> list[dict]:
    rows = {
        name: [[method.value(q, m) - against.value(q, m) for m in metrics] for q in qids]
        for name, qids in units.items()
    }
    p_values = randomisation_test(rows, seed=seed, permutations=permutations)
    found = []
    for i, metric in enumerate(metrics):
        by_unit = {name: [row[i] for row in unit_rows] for name, unit_rows in rows.items()}
        values = [value for unit_values in by_unit.values() for value in unit_values]
        wins, losses = (sum(sign * v > _EQUAL for v in values) for sign in (1, -1))
        found.append(
            {
                "method": method.name,
                "against": against.name,
                "metric": metric,
                "difference": statistics.fmean(values),
                "interval": _interval(by_unit, seed),
                "p": p_values[i],
                "wins": wins,
                "ties": len(values) - wins - losses,
                "losses": losses,
            }
        )
    return found


def _changes(
    method: Method,
    against: Method,
    qids: Sequence[str],
    count: int,
    questions: Mapping[str, str],
) -> list[Change]:
    gains = {q: method.value(q, "mrr") - against.value(q, "mrr") for q in qids}
    best = sorted((q for q in qids if gains[q] > _EQUAL), key=lambda q: (-gains[q], q))
    worst = sorted((q for q in qids if gains[q] < -_EQUAL), key=lambda q: (gains[q], q))
    return [
        Change(
            method=method.name,
            against=against.name,
            qid=qid,
            question=questions.get(qid),
            gain=gains[qid],
            queries=(_first(method, qid).query, _first(against, qid).query),
            ranks=(_ranks(method, qid), _ranks(against, qid)),
        )
        for qid in [*best[:count], *worst[:count]]
    ]


def _first(method: Method, qid: str) -> QueryResult:
    return method.seeds[0].results[qid]


def _ranks(method: Method, qid: str) -> tuple[int | None, ...]:
    return tuple(seed.results[qid].rank for seed in method.seeds)
