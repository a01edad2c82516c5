"""Retrieval metrics of a ranking, by trec_eval's own code (pytrec_eval-terrier).

Every query of the qrels counts; one that the run does not hold scores 0. Rank is position: the
scores of a run are not looked at, because trec_eval orders equal scores by descending document id.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from convsearch.errors import ConfigError, DataError
from convsearch.files import Qrels
from convsearch.trec import MAX_GRADE
from convsearch.types import Hit

METRICS = ("mrr", "ndcg_cut_3", "recall_5", "recall_10", "recall_20", "recall_100")
"""Names in every table. `mrr` reaches as deep as the run: MRR@100 for a run of 100."""
RELEVANCE_LEVEL = 1
"""Lowest grade that counts as relevant, unless another is asked for."""
_TREC_NAMES = {"mrr": "recip_rank"}

Metrics = dict[str, float]


def metric_label(name: str, depth: int) -> str:
    """What a table calls a metric: `mrr@100`, `ndcg@3`, `recall@10`. depth: of the run."""
    return f"mrr@{depth}" if name == "mrr" else name.replace("_cut_", "@").replace("l_", "l@")


def check_level(relevance_level: int) -> None:
    """Raises ConfigError for a grade that cannot be the lowest relevant one."""
    if not 1 <= relevance_level <= MAX_GRADE:
        raise ConfigError(
            f"the lowest relevant grade must be from 1 to {MAX_GRADE:,}, got {relevance_level}: 0 "
            "is what is not relevant"
        )


def per_query_metrics(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Sequence[Hit]],
    *,
    relevance_level: int = RELEVANCE_LEVEL,
) -> dict[str, Metrics]:
    """Metrics of every query of the qrels, in their order.

    run: hits best first. relevance_level: lowest grade that counts as relevant for MRR and recall
    (trec_eval -l); NDCG takes every grade as its gain. A query without a passage of that grade has
    MRR and recall 0. Raises DataError for a query that the qrels do not know, for a passage that
    is ranked twice, for a grade beyond MAX_GRADE, and for a query that has hits and no measure;
    ConfigError for a level below 1.
    """
    import pytrec_eval

    check_level(relevance_level)
    for qid, hits in run.items():
        if qid not in qrels:
            raise DataError(f"the run holds qid {qid!r}, which has no line in the qrels")
        if len({hit.doc_id for hit in hits}) < len(hits):
            raise DataError(f"the run ranks a passage of qid {qid!r} twice")
    for qid, docs in qrels.items():
        if any(abs(grade) > MAX_GRADE for grade in docs.values()):
            raise DataError(f"a grade of qid {qid!r} is beyond {MAX_GRADE:,}; mend the qrels")
    evaluator = pytrec_eval.RelevanceEvaluator(
        {qid: dict(docs) for qid, docs in qrels.items()},
        {_TREC_NAMES.get(name, name) for name in METRICS},
        relevance_level=relevance_level,
    )
    measured = evaluator.evaluate(
        {
            qid: {hit.doc_id: float(len(hits) - i) for i, hit in enumerate(hits)}
            for qid, hits in run.items()
            if hits
        }
    )
    lost = next((qid for qid, hits in run.items() if hits and qid not in measured), None)
    if lost is not None:
        raise DataError(
            f"qid {lost!r} has hits and was not measured: it has no judgement in the qrels, or "
            "memory ran out"
        )
    return {
        qid: {name: measured[qid][_TREC_NAMES.get(name, name)] for name in METRICS}
        if qid in measured
        else dict.fromkeys(METRICS, 0.0)
        for qid in qrels
    }


def mean_metrics(per_query: Mapping[str, Mapping[str, float]]) -> Metrics:
    """Mean of each metric. Raises DataError where there is no query."""
    if not per_query:
        raise DataError("there is no query to average over; check the qrels and the split")
    return {
        name: sum(metrics[name] for metrics in per_query.values()) / len(per_query)
        for name in METRICS
    }


def best_gold_rank(
    qrels: Qrels, qid: str, hits: Sequence[Hit], *, relevance_level: int = RELEVANCE_LEVEL
) -> int | None:
    """1-based position of the first passage of this grade or a higher one; None where the run does
    not hold one."""
    grades = qrels.get(qid, {})
    positions = (i for i, hit in enumerate(hits, 1) if grades.get(hit.doc_id, 0) >= relevance_level)
    return next(positions, None)


def trec_eval_order(hits: Sequence[Hit]) -> list[Hit]:
    """The order in which trec_eval looks at a run: score falling in single precision, equal scores
    by document id falling. The rank column plays no part in it."""
    with np.errstate(over="ignore"):  # beyond single precision is infinite, as in trec_eval
        singles = np.array([hit.score for hit in hits], dtype=np.float32).tolist()
    order = sorted(zip(singles, hits, strict=True), key=lambda p: (p[0], p[1].doc_id), reverse=True)
    return [hit for _, hit in order]
