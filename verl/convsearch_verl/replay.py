"""verl's sampler for `rewrite_r1` and `search_agent`: a failed rollout stops, groups are measured.

verl 0.9 marks a prompt whose generation or reward raised as failed, trains on what is left of its
group, and goes on. With a dead retrieval server that would train on nothing in particular, so here
the first failure ends the run with a sentence and verl exits with an error.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from convsearch.agent.squeeze import SqueezeMeter
from convsearch.errors import StageError
from convsearch_verl import platform_cpu
from convsearch_verl.agent_settings import NAME as AGENT
from convsearch_verl.agent_settings import agent_settings, check_rollout
from convsearch_verl.rollout_dump import RolloutDump
from convsearch_verl.settings import retriever_settings
from convsearch_verl.squeezing import check_squeezer

_AGENT_MEANS = (
    "em", "f1", "valid_form", "searched", "gold_recall", "num_turns", "num_queries", "documents",
    "faults", "squeezer_calls", "squeezer_failed",
)  # fmt: skip
METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "rewrite_r1": ("rewrite/", ("malformed", "found", "reciprocal_rank")),
    AGENT: ("agent/", _AGENT_MEANS),
}
"""Reward manager -> prefix of the metrics added to every training step, and the numbers of its
scores whose means are among them."""


def strict_replay_buffer(**arguments: Any) -> ReplayBuffer:
    """What verl calls in place of its replay buffer's class (`trainer.v1.sampler.custom_sampler`).

    Runs before any worker is started. Raises ConfigError where no retrieval server is named or an
    agent's settings are wrong, RetrieverError where the server does not answer, and EngineError
    where the endpoint of a squeezer does not.
    """
    from convsearch.retrieval.client import RetrieverClient

    node = arguments["sampler_kwargs"]
    extra: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    agent = agent_settings(extra[AGENT]) if extra["reward_manager"] == AGENT else None
    if agent is not None:
        check_rollout(agent, str(extra["rollout"]))
    settings = retriever_settings(extra["retriever"])
    client = RetrieverClient(settings.url, timeout_s=settings.timeout_s, attempts=settings.attempts)
    client.wait_ready(settings.timeout_s)
    if agent is not None:
        check_squeezer(agent, int(extra["train_batch_size"]) * int(extra["rollouts"]))
    buffer: type[_Strict] = _StrictAsync if arguments["trainer_mode"] != "sync" else _StrictSync
    poll_interval = float(extra["poll_interval_s"])
    made = buffer(**arguments, **_group_filter(extra), poll_interval=poll_interval)
    made.squeezing = SqueezeMeter()
    made.reward_manager = str(extra["reward_manager"])
    if extra.get("rollout_dump"):
        made.dump = RolloutDump(Path(extra["rollout_dump"]), str(extra["tokenizer"]))
    made.mini_batch = int(extra["mini_batch"]) if platform_cpu.selected() else 0
    return made


def _group_filter(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments verl gives its own buffer for `algorithm.filter_groups` (DAPO)."""
    options: dict[str, Any] = {"train_batch_size": extra["train_batch_size"]}
    groups = extra["filter_groups"]
    if groups["enable"]:
        options["filter_groups_metric"] = str(groups["metric"])
        options["gen_batch_size"] = 1
        options["max_inflight_gen_batches"] = groups["max_inflight_gen_batches"]
    else:
        options["gen_batch_size"] = extra["gen_batch_size"] or extra["train_batch_size"]
    return options


def group_metrics(
    uids: Sequence[str],
    scores: Sequence[Mapping[str, float]],
    reward_manager: str = "rewrite_r1",
) -> dict[str, float]:
    """Metrics of one training batch, named as in METRICS. uids: the group of each score (see
    `rewrite_score` and `agent_reward`).

    `flat_groups` is the share of groups whose rewards are all equal: they teach nothing.
    `squeezed_share` is there where a squeezer was asked.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for uid, score in zip(uids, scores, strict=True):
        groups[uid].append(score["score"])
    flat = sum(1 for rewards in groups.values() if max(rewards) == min(rewards))
    prefix, names = METRICS[reward_manager]
    means = {name: statistics.fmean(score[name] for score in scores) for name in names}
    spread = statistics.fmean(statistics.pstdev(rewards) for rewards in groups.values())
    values = {"flat_groups": flat / len(groups), "reward_std_in_group": spread, **means}
    calls, failures = squeezer_calls(scores)
    if calls:
        values["squeezed_share"] = 1 - failures / calls
    return {prefix + name: value for name, value in values.items()}


def squeezer_calls(scores: Sequence[Mapping[str, float]]) -> tuple[int, int]:
    """How often a squeezer was asked in these episodes, and how often it failed."""
    calls = sum(score.get("squeezer_calls", 0.0) for score in scores)
    return int(calls), int(sum(score.get("squeezer_failed", 0.0) for score in scores))


def grouped_order(uids: Sequence[str], prompt_lengths: Sequence[int], mini_batch: int) -> list[int]:
    """An order of the samples in which groups are together and their prompts of like length.

    mini_batch: groups in one update. Which update a group is in stays a matter of chance; only
    within it are groups sorted. `engine_cpu` computes such neighbours together.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, uid in enumerate(uids):
        groups[uid].append(i)
    numbered = list(enumerate(groups.values()))
    numbered.sort(key=lambda pair: (pair[0] // mini_batch, prompt_lengths[pair[1][0]]))
    return [i for _, members in numbered for i in members]


class _Strict(ReplayBuffer):
    """Over either buffer of verl: raises on the first failed group, adds metrics to a sample."""

    squeezing: SqueezeMeter
    """Of all workers together; each of them has one of its own as well."""
    mini_batch = 0
    """Groups in one update, where their order matters; else 0."""
    reward_manager = "rewrite_r1"
    dump: RolloutDump | None = None
    """Where the responses of each step are written, if they are."""

    def _terminal_eviction_reasons(
        self, global_steps: int, partition_id: str
    ) -> tuple[set[str], set[str], set[str], Counter]:
        failed = len(self.failure_keys[partition_id])
        if failed:
            raise StageError(
                f"step {global_steps}: {failed} prompt(s) have a rollout that failed in generation "
                "or in its reward; the first error above this line says why; mend it and start "
                "again to go on from the last checkpoint"
            )
        return super()._terminal_eviction_reasons(global_steps, partition_id)

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id != "val":
            if self.dump is not None:
                self.dump.write(global_steps, batch.keys, partition_id)
            scores = _scores(batch, partition_id)
            metrics.update(group_metrics(_uids(batch), scores, self.reward_manager))
            self.squeezing.add(*squeezer_calls(scores))
            if self.mini_batch:
                lengths = [tag["prompt_len"] for tag in batch.tags]
                batch.reorder(grouped_order(_uids(batch), lengths, self.mini_batch))
        return batch, metrics


def _scores(batch: KVBatchMeta, partition_id: str) -> list[Mapping[str, float]]:
    """What the reward manager said of each sample of a batch."""
    data: Any = tq.kv_batch_get(
        keys=batch.keys, partition_id=partition_id, select_fields=["extra_fields"]
    )
    extra_fields = [getattr(value, "data", value) for value in data["extra_fields"]]
    return [fields["reward_extra_info"] for fields in extra_fields]


def _uids(batch: KVBatchMeta) -> list[str]:
    return [key.split("_")[0] for key in batch.keys]


class _StrictSync(_Strict):
    """For `trainer.v1.trainer_mode=sync`."""


class _StrictAsync(_Strict, ReplayBufferAsync):
    """For the asynchronous trainer modes."""
