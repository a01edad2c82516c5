"""Door: the file that users name as `custom_reward_function.path`. The plugin holds the score."""

from convsearch_verl.rewrite_score import compute_score

__all__ = ["compute_score"]
