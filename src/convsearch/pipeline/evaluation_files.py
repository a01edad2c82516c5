"""The files of one evaluation: the ranking, `per_query.jsonl`, `metrics.json`, `run.json`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from convsearch.errors import ConfigError
from convsearch.eval import METRICS, metric_label
from convsearch.files import appearing_together, atomic_write, write_jsonl, write_run
from convsearch.passport import write_passport
from convsearch.pipeline.breakdown import Group, by_topic_switch, by_turn
from convsearch.pipeline.evaluation import Evaluation, GoldCheck, Intervals

RUN_NAME = "run.trec"
"""The ranking in the folder of an evaluation."""
PER_QUERY_NAME, METRICS_NAME = "per_query.jsonl", "metrics.json"


class MetricsRecord(TypedDict):
    """`metrics.json`."""

    convention: str
    """`all_queries` or `paper_compat`."""
    note: str
    """The convention in words."""
    mrr_depth: int
    relevance_level: int
    """Lowest grade that counts as relevant for MRR and recall."""
    num_queries: int
    answered: int
    missing: int
    malformed: int
    failed: int
    num_averaged: int
    golds: int | None
    """Different relevant passages of the queries; None where they could not be looked up."""
    gold_unknown: int | None
    """Those of them that the index does not have; they count as not found."""
    labels: dict[str, str]
    """What tables call each metric; MRR has its depth there."""
    metrics: dict[str, float]
    mrr_interval_95: tuple[float, float] | None
    intervals_95: Intervals | None
    by_turn: dict[str, Group] | None
    by_topic_switch: dict[str, Group] | None


def check_out(folder: Path) -> None:
    """Before anything is searched. Raises ConfigError where `folder` is, or lies in, a file."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise ConfigError(f"{place}: is a file, not a folder; name another output folder")
            return


def write_evaluation(
    out_dir: Path,
    evaluation: Evaluation,
    *,
    tag: str,
    settings: Mapping[str, object],
    inputs: Sequence[Path] = (),
    seed: int = 0,
    seconds: float | None = None,
    run_name: str = RUN_NAME,
    made: Mapping[str, object] | None = None,
) -> MetricsRecord:
    """Writes the ranking, per_query.jsonl, metrics.json and run.json into out_dir; returns what
    metrics.json holds. All four appear when the last is written, or none does.

    tag: the run's name in the last column of the ranking. run_name: file name of the ranking. made:
    as for `write_passport`.
    """
    with appearing_together(out_dir) as folder:
        record = _write_all(folder, evaluation, tag=tag, run_name=run_name)
        write_passport(
            folder / "run.json",
            stage="eval",
            settings={
                **settings,
                "topk": evaluation.topk,
                "paper_compat": evaluation.paper_compat,
                "relevance_level": evaluation.relevance_level,
            },
            inputs=inputs,
            counts=evaluation.counts,
            seed=seed,
            seconds=seconds,
            made=made,
        )
    return record


def _write_all(folder: Path, evaluation: Evaluation, *, tag: str, run_name: str) -> MetricsRecord:
    write_run(folder / run_name, evaluation.run, tag=tag)
    write_jsonl(
        folder / PER_QUERY_NAME,
        (
            {
                "qid": s.qid,
                "conv_id": s.conv_id,
                "turn": s.turn,
                "topic_switch": s.topic_switch,
                "query": s.query,
                "query_words": len(s.query.split()),
                "status": s.status,
                "rank": evaluation.ranks[s.qid],
                "metrics": evaluation.per_query[s.qid],
            }
            for s in evaluation.searched
        ),
    )
    record = metrics_record(evaluation)
    with atomic_write(folder / METRICS_NAME) as out:
        json.dump(record, out, indent=2)
        out.write("\n")
    return record


def unknown_golds_line(golds: GoldCheck | None) -> str:
    """What is said of relevant passages that are not in the index; empty where all are, or that is
    not known."""
    if golds is None or not golds.unknown:
        return ""
    return (
        f"{len(golds.unknown)} of {golds.num_golds} relevant passages are not in the index (the "
        f"first is {golds.unknown[0]!r}) and count as not found; mend the qrels, or build the "
        "index of their corpus"
    )


def metrics_record(evaluation: Evaluation) -> MetricsRecord:
    """What `metrics.json` holds."""
    return MetricsRecord(
        convention="paper_compat" if evaluation.paper_compat else "all_queries",
        note=evaluation.note,
        mrr_depth=evaluation.topk,
        relevance_level=evaluation.relevance_level,
        num_queries=evaluation.num_queries,
        answered=evaluation.counts["answered"],
        missing=evaluation.counts["missing"],
        malformed=evaluation.counts["malformed"],
        failed=evaluation.counts["failed"],
        num_averaged=evaluation.num_averaged,
        golds=evaluation.golds.num_golds if evaluation.golds else None,
        gold_unknown=len(evaluation.golds.unknown) if evaluation.golds else None,
        labels={name: metric_label(name, evaluation.topk) for name in METRICS},
        metrics={name: evaluation.metrics[name] for name in METRICS},
        mrr_interval_95=evaluation.mrr_interval,
        intervals_95=evaluation.intervals,
        by_turn=by_turn(evaluation),
        by_topic_switch=by_topic_switch(evaluation),
    )
