"""Search agents at work: the driver of the state machine that speaks through inference engines."""

from convsearch.episodes.runner import AgentRun, count_episodes, infer_episodes, run_block

__all__ = ["AgentRun", "count_episodes", "infer_episodes", "run_block"]
