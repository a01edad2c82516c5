"""Reads back what `convsearch eval` wrote: metrics.json, per_query.jsonl, run.json of a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError, MissingFileError
from convsearch.eval import METRICS, RELEVANCE_LEVEL, mean_metrics
from convsearch.files import Record, field, id_field, read_jsonl, read_turns
from convsearch.passport import sha256_of
from convsearch.texts import read_json_object

_TOLERANCE = 1e-6
_AGAIN = 'evaluate again with "convsearch eval"'


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """One turn: what was searched for it, and what came of it."""

    qid: str
    conv_id: str | None
    turn: int | None
    query: str
    status: str
    rank: int | None
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EvaluationFolder:
    """One evaluation, with what tells whether it may be compared with another."""

    folder: Path
    results: dict[str, QueryResult]
    """By qid, in the order of the evaluation."""
    metrics: dict[str, float]
    """The means as `metrics.json` has them."""
    counts: dict[str, int]
    """num_queries, answered, missing, malformed, failed."""
    topk: int
    convention: str
    """`all_queries` or `paper_compat`."""
    relevance_level: int
    """Lowest grade that counts as relevant for MRR and recall."""
    dataset: str | None
    split: str | None
    engine: str | None
    """What the passport says was searched."""
    inputs: dict[str, str]
    """Path -> hash of the files that went in."""

    def input_hash(self, name: str) -> str | None:
        """Hash of the input file of this name (`qrels.trec`, or `.gz`), None where unknown."""
        found = [h for path, h in self.inputs.items() if _is(path, name)]
        return found[0] if len(found) == 1 else None

    def questions(self) -> dict[str, str]:
        """qid -> question as asked; empty where the turns file is gone or has changed since."""
        for path, digest in self.inputs.items():
            turns = Path(path)
            if _is(path, "turns.jsonl") and turns.is_file() and sha256_of(turns) == digest:
                return {turn.qid: turn.question for turn in read_turns(turns)}
        return {}


def read_evaluation(folder: Path) -> EvaluationFolder:
    """Reads one folder. Raises MissingFileError where it is no evaluation, DataError for a damaged
    file, a repeated qid, or means that are not those of the queries beside them."""
    if not folder.is_dir():
        raise MissingFileError(f'{folder}: no such folder; make it with "convsearch eval"')
    measured, where = _read(folder / "metrics.json")
    passport, passport_at = _read(folder / "run.json")
    settings = field(passport, "settings", dict, passport_at)
    results: dict[str, QueryResult] = {}
    for line_at, record in read_jsonl(folder / "per_query.jsonl"):
        result = _result(record, line_at)
        if result.qid in results:
            raise DataError(f"{line_at}: qid {result.qid!r} occurs twice; {_AGAIN}")
        results[result.qid] = result
    if not results:
        raise DataError(f"{folder / 'per_query.jsonl'}: the file is empty; {_AGAIN}")
    names = ("num_queries", "answered", "missing", "malformed", "failed")
    made = EvaluationFolder(
        folder=folder,
        results=results,
        metrics=_numbers(field(measured, "metrics", dict, where), f"{where}: metrics"),
        counts={name: field(measured, name, int, where) for name in names},
        topk=field(measured, "mrr_depth", int, where),
        convention=field(measured, "convention", str, where),
        relevance_level=field(measured, "relevance_level", int, where)
        if "relevance_level" in measured  # folders of before had no choice
        else RELEVANCE_LEVEL,
        dataset=_text(settings, "dataset"),
        split=_text(settings, "split"),
        engine=_engine(settings),
        inputs={k: str(v) for k, v in field(passport, "inputs", dict, passport_at).items()},
    )
    _check_whole(made)
    return made


def _check_whole(made: EvaluationFolder) -> None:
    """Files of two evaluations in one folder would go unseen otherwise."""
    if made.counts["num_queries"] != len(made.results):
        raise DataError(
            f"{made.folder}: metrics.json counts {made.counts['num_queries']} queries and "
            f"per_query.jsonl holds {len(made.results)}; {_AGAIN}"
        )
    if made.convention != "all_queries":
        return
    means = mean_metrics({qid: r.metrics for qid, r in made.results.items()})
    wrong = next((n for n in METRICS if abs(means[n] - made.metrics[n]) > _TOLERANCE), None)
    if wrong is not None:
        raise DataError(
            f"{made.folder}: {wrong} is {made.metrics[wrong]:.6f} in metrics.json and "
            f"{means[wrong]:.6f} by per_query.jsonl; {_AGAIN}"
        )


def _result(record: Record, where: str) -> QueryResult:
    rank, turn, conv_id = (record.get(name) for name in ("rank", "turn", "conv_id"))
    for name, value in (("rank", rank), ("turn", turn)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise DataError(f'{where}: field "{name}" must be a whole number or null')
    return QueryResult(
        qid=id_field(record, "qid", where),
        conv_id=None if conv_id is None else field(record, "conv_id", str, where),
        turn=turn if isinstance(turn, int) else None,
        query=field(record, "query", str, where),
        status=field(record, "status", str, where),
        rank=rank if isinstance(rank, int) else None,
        metrics=_numbers(field(record, "metrics", dict, where), f"{where}: metrics"),
    )


def _numbers(record: Mapping[str, object], where: str) -> dict[str, float]:
    found = {}
    for name in METRICS:
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f'{where}: "{name}" must be a number; {_AGAIN}')
        found[name] = float(value)
    return found


def _read(path: Path) -> tuple[Record, str]:
    if not path.is_file():
        raise MissingFileError(f'{path}: no such file; name a folder made by "convsearch eval"')
    return read_json_object(path, _AGAIN), str(path)


def _engine(settings: Mapping[str, object]) -> str | None:
    """What the engine said of itself, which tells two indexes apart and not two addresses of one;
    where it said nothing, the address."""
    said = settings.get("engine")
    if isinstance(said, dict) and isinstance(said.get("fingerprint"), str):
        return f"{said.get('engine')} {said['fingerprint'][:12]}"
    return _text(settings, "retriever")


def _text(settings: Mapping[str, object], name: str) -> str | None:
    value = settings.get(name)
    return value if isinstance(value, str) else None


def _is(path: str, name: str) -> bool:
    return Path(path).name.removesuffix(".gz") == name
