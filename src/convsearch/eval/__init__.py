"""What a ranking is worth: metrics and their uncertainty."""

from convsearch.eval.bootstrap import bootstrap_interval, bootstrap_intervals
from convsearch.eval.metrics import (
    METRICS,
    RELEVANCE_LEVEL,
    best_gold_rank,
    check_level,
    mean_metrics,
    metric_label,
    per_query_metrics,
    trec_eval_order,
)

__all__ = [
    "METRICS",
    "RELEVANCE_LEVEL",
    "best_gold_rank",
    "bootstrap_interval",
    "bootstrap_intervals",
    "check_level",
    "mean_metrics",
    "metric_label",
    "per_query_metrics",
    "trec_eval_order",
]
