"""Self-distillation: the policy's own best rewrites become its first training data."""

from convsearch.distill.self_distill import DistillCounts, DistillSettings, self_distill

__all__ = ["DistillCounts", "DistillSettings", "self_distill"]
