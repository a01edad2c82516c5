"""Evaluation folders as `convsearch eval` leaves them, with ranks of the test's choice."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from convsearch.eval import METRICS, mean_metrics
from convsearch.files import write_jsonl

Ranks = Mapping[str, int | None]
"""qid -> rank; the conversation is what stands before the last underscore, the turn behind it."""


def metrics_of(rank: int | None) -> dict[str, float]:
    """Metrics of a question with a single relevant passage."""
    found = rank or 10**9
    values = {"mrr": 1 / rank if rank else 0.0}
    values["ndcg_cut_3"] = 1 / math.log2(found + 1) if found <= 3 else 0.0
    values |= {name: float(found <= int(name.split("_")[1])) for name in METRICS if "rec" in name}
    return values


def write_folder(
    folder: Path,
    ranks: Ranks,
    *,
    dataset: str | None = "toy",
    split: str = "test",
    engine: str = "runs/index",
    fingerprint: str | None = None,
    topk: int = 100,
    convention: str = "all_queries",
    relevance_level: int | None = None,
    status: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
    query: str = "query of {name} for {qid}",
) -> Path:
    """Writes metrics.json, per_query.jsonl and run.json; returns the folder."""
    statuses = {qid: (status or {}).get(qid, "ok") for qid in ranks}
    records = [
        {
            "qid": qid,
            "conv_id": qid.rpartition("_")[0],
            "turn": int(qid.rpartition("_")[2]),
            "query": query.format(name=folder.name, qid=qid),
            "status": statuses[qid],
            "rank": rank,
            "metrics": metrics_of(rank),
        }
        for qid, rank in ranks.items()
    ]
    write_jsonl(folder / "per_query.jsonl", records)
    counts = dict.fromkeys(("missing", "malformed", "failed"), 0)
    for found in statuses.values():
        if found != "ok":
            counts[found] += 1
    averaged = {q: metrics_of(r) for q, r in ranks.items() if statuses[q] == "ok"}
    means = mean_metrics({q: metrics_of(r) for q, r in ranks.items()})
    metrics = {
        "convention": convention,
        **({} if relevance_level is None else {"relevance_level": relevance_level}),
        "mrr_depth": topk,
        "num_queries": len(ranks),
        "answered": len(averaged),
        **counts,
        "metrics": means if convention == "all_queries" else mean_metrics(averaged),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    said = {"engine": "bm25", "num_passages": 9, "fingerprint": fingerprint}
    settings = {
        "dataset": dataset,
        "split": split,
        "retriever": engine,
        "engine": said if fingerprint else None,
        "topk": topk,
    }
    passport = {"settings": settings, "inputs": dict(inputs or {})}
    (folder / "run.json").write_text(json.dumps(passport))
    return folder
