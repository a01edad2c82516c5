"""What a ranking is worth: metrics and their uncertainty."""

from convsearch.eval.bootstrap import bootstrap_interval
from convsearch.eval.metrics import METRICS, best_gold_rank, mean_metrics, per_query_metrics

__all__ = [
    "METRICS",
    "best_gold_rank",
    "bootstrap_interval",
    "mean_metrics",
    "per_query_metrics",
]
