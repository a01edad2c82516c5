"""`summary.json`: the result of a run in one file, for people and for other programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.eval.metrics import METRICS
from convsearch.files import atomic_write, field
from convsearch.pipeline.layout import COMPARED
from convsearch.texts import read_json_object

DEFAULT_DEPTH = 100
"""Depth of the runs whose summary does not say it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured for one source of queries."""

    metrics: dict[str, float]
    """Mean over all queries of the split, by the names of `convsearch.eval.METRICS`."""
    mrr_interval: tuple[float, float]
    """95 % bootstrap interval of MRR, drawn by conversation."""
    num_malformed: int = 0
    """Responses that broke the format; their turn was searched with the raw question."""
    num_failed: int = 0
    """Turns for which the engine gave no response; likewise searched with the raw question."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """MRR of one row against another, question by question."""

    method: str
    against: str
    difference: float
    """Of the means; positive in favour of `method`."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval of the difference, by conversation; None where there is one only."""
    p: float
    """Two-sided, of the randomisation test by conversation."""
    p_holm: float
    """Corrected for all tests of the summary."""
    wins: int
    """Questions that `method` ranks higher."""
    ties: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One run. `stages` holds what is compared, `seconds` the wall time of each pipeline stage."""

    dataset: str
    eval_split: str
    num_queries: int
    num_conversations: int
    stages: dict[str, Result]
    seconds: dict[str, float]
    peak_rss_mb: float
    versions: dict[str, str]
    seed: int
    policy: str
    git: str | None
    date: str
    command: str
    distill_counts: dict[str, int]
    mrr_depth: int = DEFAULT_DEPTH
    """Passages of each ranking, by which MRR is named."""
    tests: tuple[PairedTest, ...] = ()
    """grpo against every other row; runs of before have none."""


def write_summary(path: Path, summary: Summary) -> None:
    """Writes `summary.json`, atomically."""
    record = {
        "dataset": summary.dataset,
        "eval_split": summary.eval_split,
        "num_queries": summary.num_queries,
        "num_conversations": summary.num_conversations,
        "stages": {
            name: {
                **{metric: round(value, 6) for metric, value in result.metrics.items()},
                "mrr_interval": [round(bound, 6) for bound in result.mrr_interval],
                "num_malformed": result.num_malformed,
                "num_failed": result.num_failed,
            }
            for name, result in summary.stages.items()
        },
        "seconds": summary.seconds,
        "peak_rss_mb": summary.peak_rss_mb,
        "versions": summary.versions,
        "seed": summary.seed,
        "policy": summary.policy,
        "git": summary.git,
        "date": summary.date,
        "command": summary.command,
        "distill_counts": summary.distill_counts,
        "mrr_depth": summary.mrr_depth,
        "tests": [_rounded(asdict(test)) for test in summary.tests],
    }
    with atomic_write(path) as out:
        json.dump(record, out, indent=2, ensure_ascii=False)
        out.write("\n")


def read_summary(path: Path) -> Summary:
    """Reads `summary.json`. Raises MissingFileError, or DataError that names the wrong field."""
    record, where = read_json_object(path, "is this the summary of a run?"), str(path)
    git = record.get("git")
    return Summary(
        dataset=field(record, "dataset", str, where),
        eval_split=field(record, "eval_split", str, where),
        num_queries=field(record, "num_queries", int, where),
        num_conversations=field(record, "num_conversations", int, where),
        stages=_read_results(field(record, "stages", dict, where), f"{where}: stages"),
        seconds=_numbers(field(record, "seconds", dict, where), f"{where}: seconds"),
        peak_rss_mb=_numbers(record, where, only=("peak_rss_mb",))["peak_rss_mb"],
        versions={str(k): str(v) for k, v in field(record, "versions", dict, where).items()},
        seed=field(record, "seed", int, where),
        policy=field(record, "policy", str, where),
        git=git if isinstance(git, str) else None,
        date=field(record, "date", str, where),
        command=field(record, "command", str, where),
        distill_counts={
            name: int(value)
            for name, value in _numbers(
                field(record, "distill_counts", dict, where), f"{where}: distill_counts"
            ).items()
        },
        mrr_depth=field({"mrr_depth": DEFAULT_DEPTH, **record}, "mrr_depth", int, where),
        tests=tuple(
            _read_test(test, f"{where}: tests")
            for test in field({"tests": [], **record}, "tests", list, where)
        ),
    )


def _read_results(stages: Mapping[str, object], where: str) -> dict[str, Result]:
    results = {}
    for name in (*stages, *(name for name in COMPARED if name not in stages)):
        stage = stages.get(name)
        if not isinstance(stage, dict):
            raise DataError(f'{where}: "{name}" is missing; run the evaluation of this run again')
        interval = field(stage, "mrr_interval", list, f"{where}.{name}")
        if len(interval) != 2:
            raise DataError(f"{where}.{name}: mrr_interval must hold two numbers")
        results[name] = Result(
            metrics=_numbers(stage, f"{where}.{name}", only=METRICS),
            mrr_interval=(float(interval[0]), float(interval[1])),
            num_malformed=field(stage, "num_malformed", int, f"{where}.{name}"),
            num_failed=field(stage, "num_failed", int, f"{where}.{name}"),
        )
    return results


def _read_test(record: object, where: str) -> PairedTest:
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected JSON objects")
    interval = record.get("interval")
    if interval is not None and not (isinstance(interval, list) and len(interval) == 2):
        raise DataError(f"{where}: interval must hold two numbers or be null")
    numbers = _numbers(record, where, only=("difference", "p", "p_holm"))
    return PairedTest(
        method=field(record, "method", str, where),
        against=field(record, "against", str, where),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        wins=field(record, "wins", int, where),
        ties=field(record, "ties", int, where),
        losses=field(record, "losses", int, where),
        **numbers,
    )


def _rounded(record: dict[str, object]) -> dict[str, object]:
    """Floats to six digits, also in pairs."""
    rounded = dict(record)
    for key, value in record.items():
        if isinstance(value, float):
            rounded[key] = round(value, 6)
        elif isinstance(value, tuple):
            rounded[key] = [round(bound, 6) for bound in value]
    return rounded


def _numbers(
    record: Mapping[str, object], where: str, *, only: tuple[str, ...] | None = None
) -> dict[str, float]:
    numbers = {}
    for name in only if only is not None else tuple(record):
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f'{where}: field "{name}" must be a number, found {value!r}')
        numbers[name] = float(value)
    return numbers
