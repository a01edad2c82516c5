"""verl's reward manager `search_agent`: what an episode of the loop of that name earned.

Scored is the episode that the loop put beside its tokens, never the decoded tokens, so that nothing
a search brought back can pass for an answer.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RawRewardFn, RewardManagerBase

from convsearch.agent.records import parse_episode
from convsearch.errors import ConfigError, DataError
from convsearch.rewards.search_agent import AgentRewardSettings, search_agent_reward
from convsearch.types import Episode
from convsearch_verl.agent_settings import NAME, agent_settings
from convsearch_verl.search_loop import EPISODE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARALLEL_TYPE = "comparison"
"""Type of the questions whose parts do not wait for each other (the terms of ParallelSearch)."""


@register(NAME)
class AgentRewardManager(RewardManagerBase):
    """One per reward worker of verl."""

    def __init__(
        self,
        config: DictConfig,
        tokenizer: "PreTrainedTokenizerBase",
        compute_score: RawRewardFn,
        reward_router_address: str | None = None,
        reward_model_tokenizer: object = None,
    ) -> None:
        """Raises ConfigError for wrong settings, or where a score function is named."""
        super().__init__(config, tokenizer, compute_score)  # pyright: ignore[reportArgumentType]
        path = (config.reward.get("custom_reward_function") or {}).get("path")
        if path:
            raise ConfigError(
                f"custom_reward_function.path={path} would never be called: the reward manager "
                f"{NAME} scores by itself; leave the path out"
            )
        node = config.get(NAME)
        values = OmegaConf.to_container(node, resolve=True) if node is not None else None
        self._settings = agent_settings(values).reward  # pyright: ignore[reportArgumentType]

    async def run_single(self, data: DataProto) -> dict[str, object]:
        """`reward_score` and `reward_extra_info` (numbers, see `episode_score`) of one episode."""
        row: Any = data[len(data) - 1].non_tensor_batch
        fields = row.get("tool_extra_fields")
        record = fields.get(EPISODE) if isinstance(fields, Mapping) else None
        if not isinstance(record, str):
            raise ConfigError(
                f"a rollout has no episode to score: the reward manager {NAME} goes with the agent "
                f'loop {NAME}; the column agent_name of the training file must say "{NAME}"'
            )
        episode = parse_episode(json.loads(record), "the episode of a rollout")
        answers = row["reward_model"]["ground_truth"]
        score = episode_score(episode, answers, row.get("extra_info"), self._settings)
        return {"reward_score": score["score"], "reward_extra_info": score}


def episode_score(
    episode: Episode,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None,
    settings: AgentRewardSettings,
) -> dict[str, float]:
    """`score` and the numbers beside it, which show up in verl's metrics.

    ground_truth: the accepted answers. extra_info: `golds`, ids of the passages that the answer
    needs, and `type`, where they are known. Raises DataError for a row without an answer.
    """
    info = extra_info or {}
    answers = _texts(ground_truth)
    if not answers:
        raise DataError(
            f"question {episode.qid!r} has no accepted answer in reward_model.ground_truth; make "
            'the file with "convsearch data agent-prompts"'
        )
    kind = str(info.get("type") or "")
    earned = search_agent_reward(
        episode,
        answers,
        settings,
        gold_ids=_texts(info.get("golds")),
        parallel=kind == PARALLEL_TYPE if kind else None,
    )
    return {
        "score": earned.reward,
        "em": earned.em,
        "f1": earned.f1,
        "valid_form": float(earned.valid_form),
        "searched": float(earned.searched),
        "gold_recall": earned.gold_recall,
        "num_turns": float(episode.num_turns),
        "num_queries": float(len(episode.queries)),
        "documents": float(len(episode.doc_ids)),
        "faults": float(sum(span.fault is not None for span in episode.spans)),
        "squeezer_calls": float(sum(span.squeezed is not None for span in episode.spans)),
        "squeezer_failed": float(episode.counts.get("squeezer_failed", 0)),
    }


def _texts(values: Any) -> list[str]:
    """A list, whatever kind of array parquet made of it; a single text is one entry."""
    if isinstance(values, str):
        return [values]
    return [str(value) for value in values] if values is not None else []
