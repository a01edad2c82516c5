"""Evaluation of queries against a search engine: the run, its metrics, and what lies behind them.

Honest by default: the mean goes over every turn of the split. A turn without a well-formed rewrite
is searched with its raw question, as a system in use would, and is counted.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convsearch.errors import ConfigError, DataError
from convsearch.eval import (
    METRICS,
    best_gold_rank,
    bootstrap_interval,
    mean_metrics,
    per_query_metrics,
)
from convsearch.files import Qrels, atomic_write, gold_ids, write_jsonl, write_run
from convsearch.passport import write_passport
from convsearch.retrieval import Retriever
from convsearch.types import Hit, Rewrite, Turn

QUERIES_PER_CALL = 128
"""Queries that are searched by one call of the retriever."""
PAPER_COMPAT_NOTE = (
    "paper_compat: mean over answered queries with hits only, as the original's script takes it; "
    "turns without a well-formed rewrite are left out, so this is not comparable with the default"
)
ALL_QUERIES_NOTE = (
    "mean over all queries of the split; a turn without a well-formed rewrite is searched with its "
    "raw question"
)

MIN_TOPK = 100
"""Depth of recall_100, the deepest metric."""

QueryStatus = Literal["ok", "missing", "malformed", "failed"]
"""`ok`: searched as given. Else what the rewrites hold for the turn; `missing` is nothing."""
Baseline = Literal["raw", "history"]
Progress = Callable[[int, int], None]
"""(queries searched, queries in all)."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One query of the evaluation."""

    qid: str
    query: str
    """What is searched; an empty text finds nothing."""
    status: QueryStatus = "ok"
    conv_id: str | None = None
    """None where only qids are known; there is no interval then."""
    turn: int | None = None
    """1-based position in the conversation."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found for a list of queries."""

    searched: tuple[Searched, ...]
    run: dict[str, list[Hit]]
    """qid -> hits, best first, their scores rewritten as n, n-1, ..., 1."""
    ranks: dict[str, int | None]
    """qid -> rank of the best gold passage within topk."""
    per_query: dict[str, dict[str, float]]
    metrics: dict[str, float]
    """Means; which queries they go over is told by `note`."""
    mrr_interval: tuple[float, float] | None
    """95 % bootstrap interval of MRR by conversation; None where conversations are not known."""
    num_averaged: int
    topk: int
    paper_compat: bool

    @property
    def num_queries(self) -> int:
        """Turns of the split, answered or not."""
        return len(self.searched)

    @property
    def counts(self) -> dict[str, int]:
        """num_queries, answered, missing, malformed, failed; the last four sum to the first."""
        statuses = Counter(s.status for s in self.searched)
        return {
            "num_queries": len(self.searched),
            "answered": statuses["ok"],
            "missing": statuses["missing"],
            "malformed": statuses["malformed"],
            "failed": statuses["failed"],
        }

    @property
    def note(self) -> str:
        """The convention of the means, in words."""
        return PAPER_COMPAT_NOTE if self.paper_compat else ALL_QUERIES_NOTE


def baseline_queries(turns: Sequence[Turn], baseline: Baseline) -> dict[str, str]:
    """`raw`: the question as asked. `history`: all that was said before, and the question."""
    if baseline not in ("raw", "history"):
        raise ConfigError(f"unknown baseline {baseline!r}; choose raw or history")
    return {t.qid: t.question if baseline == "raw" else t.history_query for t in turns}


def evaluate_queries(
    turns: Sequence[Turn],
    queries: Mapping[str, str],
    retriever: Retriever,
    qrels: Qrels,
    topk: int = 100,
    *,
    paper_compat: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Searches `queries[qid]` for each turn; a turn without one counts as missing, and is searched
    with its raw question.

    Raises DataError for a query of an unknown qid and for a turn without qrels.
    """
    _check_known(turns, queries)
    searched = [
        Searched(
            qid=t.qid,
            query=queries.get(t.qid, t.question),
            status="ok" if t.qid in queries else "missing",
            conv_id=t.conv_id,
            turn=t.turn,
        )
        for t in turns
    ]
    return evaluate_searched(
        searched,
        retriever,
        qrels,
        topk,
        paper_compat=paper_compat,
        seed=seed,
        on_progress=on_progress,
    )


def evaluate_rewrites(
    turns: Sequence[Turn],
    rewrites: Sequence[Rewrite],
    retriever: Retriever,
    qrels: Qrels,
    topk: int = 100,
    *,
    paper_compat: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Searches each turn's rewrite, or its raw question where it has none that is well-formed.

    paper_compat: only well-formed rewrites are searched, and only those that find anything are
    averaged. Raises DataError for a rewrite of an unknown qid, several candidates for one turn,
    and a turn without qrels.
    """
    by_qid = one_per_turn(rewrites)
    _check_known(turns, by_qid)
    searched = []
    for turn in turns:
        rewrite = by_qid.get(turn.qid)
        answered = rewrite is not None and rewrite.text is not None
        searched.append(
            Searched(
                qid=turn.qid,
                query=rewrite.text if rewrite and rewrite.text is not None else turn.question,
                status="ok" if answered else rewrite.status if rewrite else "missing",
                conv_id=turn.conv_id,
                turn=turn.turn,
            )
        )
    return evaluate_searched(
        searched,
        retriever,
        qrels,
        topk,
        paper_compat=paper_compat,
        seed=seed,
        on_progress=on_progress,
    )


def one_per_turn(rewrites: Sequence[Rewrite]) -> dict[str, Rewrite]:
    """Rewrites by qid. Raises DataError where a turn has several candidates."""
    by_qid = {r.qid: r for r in rewrites}
    if len(by_qid) < len(rewrites):
        twice = next(qid for qid, n in Counter(r.qid for r in rewrites).items() if n > 1)
        raise DataError(
            f"the rewrites hold several candidates for qid {twice!r}; evaluation takes one a turn "
            '(run "convsearch infer" with --candidates 1)'
        )
    return by_qid


def evaluate_searched(
    searched: Sequence[Searched],
    retriever: Retriever,
    qrels: Qrels,
    topk: int = 100,
    *,
    paper_compat: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """The core of every evaluation: one search for each query, one mean over all of them.

    Raises ConfigError for a topk under MIN_TOPK, DataError as the functions above.
    """
    if topk < MIN_TOPK:
        raise ConfigError(f"topk must be {MIN_TOPK} or more, the depth of recall_100; got {topk}")
    judged = {s.qid: qrels[s.qid] for s in searched if gold_ids(qrels, s.qid)}
    without = next((s.qid for s in searched if s.qid not in judged), None)
    if without is not None:
        raise DataError(f"qid {without!r} has no relevant passage in the qrels; mend the qrels")
    chosen = [s for s in searched if s.query.strip() and not (paper_compat and s.status != "ok")]
    run: dict[str, list[Hit]] = {s.qid: [] for s in searched}
    for start in range(0, len(chosen), QUERIES_PER_CALL):
        chunk = chosen[start : start + QUERIES_PER_CALL]
        found = retriever.search([s.query for s in chunk], topk)
        for s, hits in zip(chunk, found, strict=True):
            run[s.qid] = _scored_by_position(hits)
        if on_progress:
            on_progress(start + len(chunk), len(chosen))
    per_query = per_query_metrics(judged, run)
    averaged = {q: m for q, m in per_query.items() if run[q] or not paper_compat}
    return Evaluation(
        searched=tuple(searched),
        run=run,
        ranks={qid: best_gold_rank(qrels, qid, hits) for qid, hits in run.items()},
        per_query=per_query,
        metrics=mean_metrics(averaged),
        mrr_interval=_mrr_interval(searched, averaged, seed),
        num_averaged=len(averaged),
        topk=topk,
        paper_compat=paper_compat,
    )


def write_evaluation(
    out_dir: Path,
    evaluation: Evaluation,
    *,
    tag: str,
    settings: Mapping[str, object],
    inputs: Sequence[Path] = (),
    seed: int = 0,
    seconds: float | None = None,
    run_name: str = "run.trec",
) -> None:
    """Writes the ranking, per_query.jsonl, metrics.json and run.json into out_dir.

    tag: the run's name in the last column of the ranking. run_name: file name of the ranking.
    """
    write_run(out_dir / run_name, evaluation.run, tag=tag)
    write_jsonl(
        out_dir / "per_query.jsonl",
        (
            {
                "qid": s.qid,
                "conv_id": s.conv_id,
                "turn": s.turn,
                "query": s.query,
                "status": s.status,
                "rank": evaluation.ranks[s.qid],
                "metrics": evaluation.per_query[s.qid],
            }
            for s in evaluation.searched
        ),
    )
    with atomic_write(out_dir / "metrics.json") as out:
        json.dump(metrics_record(evaluation), out, indent=2)
        out.write("\n")
    write_passport(
        out_dir / "run.json",
        stage="eval",
        settings={**settings, "topk": evaluation.topk, "paper_compat": evaluation.paper_compat},
        inputs=inputs,
        counts=evaluation.counts,
        seed=seed,
        seconds=seconds,
    )


def metrics_record(evaluation: Evaluation) -> dict[str, object]:
    """What `metrics.json` holds."""
    return {
        "convention": "paper_compat" if evaluation.paper_compat else "all_queries",
        "note": evaluation.note,
        "mrr_depth": evaluation.topk,
        **evaluation.counts,
        "num_averaged": evaluation.num_averaged,
        "metrics": {name: evaluation.metrics[name] for name in METRICS},
        "mrr_interval_95": evaluation.mrr_interval,
    }


def _check_known(turns: Sequence[Turn], qids: Mapping[str, object]) -> None:
    known = {turn.qid for turn in turns}
    unknown = next((qid for qid in qids if qid not in known), None)
    if unknown is not None:
        raise DataError(
            f"qid {unknown!r} has a query and is not among the {len(known)} turns; evaluate with "
            "the data set and split that the queries were made from"
        )


def _scored_by_position(hits: Sequence[Hit]) -> list[Hit]:
    """Equal scores would be put into another order by trec_eval."""
    return [Hit(doc_id=hit.doc_id, score=float(len(hits) - i)) for i, hit in enumerate(hits)]


def _mrr_interval(
    searched: Sequence[Searched], averaged: Mapping[str, Mapping[str, float]], seed: int
) -> tuple[float, float] | None:
    by_conv: dict[str, list[float]] = defaultdict(list)
    for s in searched:
        if s.conv_id is None:
            return None
        if s.qid in averaged:
            by_conv[s.conv_id].append(averaged[s.qid]["mrr"])
    return bootstrap_interval(by_conv, seed=seed)
