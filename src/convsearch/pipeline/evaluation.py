"""Evaluation of queries against a search engine: the run, its metrics, and what lies behind them.

Honest by default: the mean goes over every turn of the split. A turn without a well-formed rewrite
is searched with its raw question, as a system in use would, and is counted.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from convsearch.errors import ConfigError, DataError
from convsearch.eval import (
    RELEVANCE_LEVEL,
    best_gold_rank,
    bootstrap_intervals,
    check_level,
    mean_metrics,
    per_query_metrics,
)
from convsearch.files import Qrels, gold_ids
from convsearch.pipeline.searched import Searched, searched_queries, searched_rewrites
from convsearch.retrieval import Retriever
from convsearch.retrieval.known import unknown_ids
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

Intervals = dict[str, tuple[float, float]]
"""Metric -> 95 % bootstrap interval of its mean, by conversation."""
Progress = Callable[[int, int], None]
"""(queries searched, queries in all)."""


@dataclass(frozen=True, kw_only=True)
class GoldCheck:
    """The relevant passages of the queries, looked up in the index before anything is searched."""

    num_golds: int
    """Different passages, over all queries."""
    unknown: tuple[str, ...]
    """Those that the index does not have. They count as not found."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found for a list of queries."""

    searched: tuple[Searched, ...]
    run: dict[str, list[Hit]]
    """qid -> hits, best first, their scores rewritten as n, n-1, ..., 1."""
    ranks: dict[str, int | None]
    """qid -> rank of the first relevant passage within topk."""
    per_query: dict[str, dict[str, float]]
    averaged: frozenset[str]
    """The qids that the means go over."""
    metrics: dict[str, float]
    """Means; which queries they go over is told by `note`."""
    intervals: Intervals | None
    """Of every mean; None where conversations are not known, or there are fewer than two."""
    topk: int
    paper_compat: bool
    relevance_level: int
    """Lowest grade that counts as relevant for MRR, recall and ranks."""
    note: str
    """The convention of the means, in words."""
    seed: int
    """Of the intervals."""
    golds: "GoldCheck | None" = None
    """Whether the relevant passages are in what was searched; None where that was not asked."""

    @property
    def num_queries(self) -> int:
        """Turns of the split, answered or not."""
        return len(self.searched)

    @property
    def num_averaged(self) -> int:
        """Turns that the means go over."""
        return len(self.averaged)

    @property
    def mrr_interval(self) -> tuple[float, float] | None:
        """The interval of MRR."""
        return self.intervals["mrr"] if self.intervals else None

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


def evaluate_queries(
    turns: Sequence[Turn],
    queries: Mapping[str, str],
    retriever: Retriever,
    qrels: Qrels,
    topk: int = 100,
    *,
    switches: Mapping[str, bool | None] | None = None,
    paper_compat: bool = False,
    relevance_level: int = RELEVANCE_LEVEL,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """`searched_queries`, evaluated. Raises DataError also for a turn without qrels."""
    return evaluate_searched(
        searched_queries(turns, queries, switches),
        retriever,
        qrels,
        topk,
        paper_compat=paper_compat,
        relevance_level=relevance_level,
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
    switches: Mapping[str, bool | None] | None = None,
    paper_compat: bool = False,
    relevance_level: int = RELEVANCE_LEVEL,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """`searched_rewrites`, evaluated. Raises DataError also for a turn without qrels.

    paper_compat: only well-formed rewrites are searched, and only those that find anything are
    averaged.
    """
    return evaluate_searched(
        searched_rewrites(turns, rewrites, switches),
        retriever,
        qrels,
        topk,
        paper_compat=paper_compat,
        relevance_level=relevance_level,
        seed=seed,
        on_progress=on_progress,
    )


def evaluate_searched(
    searched: Sequence[Searched],
    retriever: Retriever,
    qrels: Qrels,
    topk: int = 100,
    *,
    paper_compat: bool = False,
    relevance_level: int = RELEVANCE_LEVEL,
    note: str | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """The core of every evaluation: one search for each query, one mean over all of them.

    note: as `score_run` takes it. Raises ConfigError for a topk under MIN_TOPK or a level below 1,
    DataError as the functions above and where the index is of another corpus.
    """
    if topk < MIN_TOPK:
        raise ConfigError(f"topk must be {MIN_TOPK} or more, the depth of recall_100; got {topk}")
    check_level(relevance_level)
    without = next((s.qid for s in searched if not gold_ids(qrels, s.qid)), None)
    if without is not None:
        raise DataError(f"qid {without!r} has no relevant passage in the qrels; mend the qrels")
    golds = check_golds([s.qid for s in searched], qrels, partial(unknown_ids, retriever))
    chosen = [s for s in searched if s.query.strip() and not (paper_compat and s.status != "ok")]
    run: dict[str, Sequence[Hit]] = {}
    for start in range(0, len(chosen), QUERIES_PER_CALL):
        chunk = chosen[start : start + QUERIES_PER_CALL]
        found = retriever.search([s.query for s in chunk], topk)
        run.update({s.qid: hits for s, hits in zip(chunk, found, strict=True)})
        if on_progress:
            on_progress(start + len(chunk), len(chosen))
    return score_run(
        searched,
        run,
        qrels,
        topk,
        paper_compat=paper_compat,
        relevance_level=relevance_level,
        note=note,
        seed=seed,
        golds=golds,
    )


def check_golds(
    qids: Sequence[str], qrels: Qrels, unknown_of: Callable[[Sequence[str]], Sequence[str] | None]
) -> GoldCheck | None:
    """Looks up the relevant passages of these queries; None where that cannot be told.

    unknown_of: passage ids -> those that the index does not have. Raises DataError where it has
    none of them: it is of another corpus, and the numbers would not say why nothing is found.
    """
    golds = list(dict.fromkeys(gold for qid in qids for gold in gold_ids(qrels, qid)))
    unknown = unknown_of(golds)
    if unknown is None:
        return None
    if golds and len(unknown) == len(golds):
        raise DataError(
            f"none of the {len(golds)} relevant passages that were looked up is in the index (the "
            f"first is {golds[0]!r}); search an index of the corpus that the qrels belong to"
        )
    return GoldCheck(num_golds=len(golds), unknown=tuple(unknown))


def score_run(
    searched: Sequence[Searched],
    run: Mapping[str, Sequence[Hit]],
    qrels: Qrels,
    topk: int,
    *,
    paper_compat: bool = False,
    relevance_level: int = RELEVANCE_LEVEL,
    note: str | None = None,
    seed: int = 0,
    golds: GoldCheck | None = None,
) -> Evaluation:
    """The evaluation of rankings that are there already. A query without hits scores 0.

    run: qid -> hits, best first; only those of `searched` count. topk: depth that MRR is named by.
    relevance_level: as `per_query_metrics` takes it. note: the convention of the means; None takes
    that of queries and rewrites. Raises DataError where the qrels do not know a query, where a
    passage is ranked twice, and where nothing is left to average, ConfigError for a level below 1.
    """
    judged = {s.qid: qrels[s.qid] for s in searched if s.qid in qrels}
    ordered = {s.qid: _scored_by_position(run.get(s.qid, ())) for s in searched}
    per_query = per_query_metrics(judged, ordered, relevance_level=relevance_level)
    averaged = {q: m for q, m in per_query.items() if ordered[q] or not paper_compat}
    return Evaluation(
        searched=tuple(searched),
        run=ordered,
        ranks={
            qid: best_gold_rank(qrels, qid, hits, relevance_level=relevance_level)
            for qid, hits in ordered.items()
        },
        per_query=per_query,
        averaged=frozenset(averaged),
        metrics=mean_metrics(averaged),
        intervals=intervals_by_conversation(searched, averaged, seed=seed),
        topk=topk,
        paper_compat=paper_compat,
        relevance_level=relevance_level,
        note=(note or (PAPER_COMPAT_NOTE if paper_compat else ALL_QUERIES_NOTE))
        + _level_note(relevance_level),
        seed=seed,
        golds=golds,
    )


def _level_note(relevance_level: int) -> str:
    if relevance_level == RELEVANCE_LEVEL:
        return ""
    return (
        f"; for MRR and recall a passage is relevant from grade {relevance_level} on (trec_eval "
        f"-l {relevance_level}), NDCG takes all grades"
    )


def intervals_by_conversation(
    searched: Sequence[Searched], averaged: Mapping[str, Mapping[str, float]], *, seed: int
) -> Intervals | None:
    """The interval of each mean over those of `searched` that are in `averaged` (qid -> metrics).

    None where the conversation of a query is not known, and for fewer than two conversations:
    drawing one of one always gives the same mean, which would look like certainty.
    """
    by_conv: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for s in searched:
        if s.conv_id is None:
            return None
        if s.qid in averaged:
            by_conv[s.conv_id].append(averaged[s.qid])
    return bootstrap_intervals(by_conv, seed=seed) if len(by_conv) > 1 else None


def _scored_by_position(hits: Sequence[Hit]) -> list[Hit]:
    """Equal scores would be put into another order by trec_eval."""
    return [Hit(doc_id=hit.doc_id, score=float(len(hits) - i)) for i, hit in enumerate(hits)]
