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

MOST_REPLACED = 2
"""Flat groups that a step may replace (`algorithm.filter_groups`), as a multiple of its prompts."""


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
    made.replaced = {}
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
    `drawn_groups` counts the groups.
    `squeezed_share` is there where a squeezer was asked.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for uid, score in zip(uids, scores, strict=True):
        groups[uid].append(score["score"])
    flat = sum(1 for rewards in groups.values() if max(rewards) == min(rewards))
    prefix, names = METRICS[reward_manager]
    means = {name: statistics.fmean(score[name] for score in scores) for name in names}
    spread = statistics.fmean(statistics.pstdev(rewards) for rewards in groups.values())
    values = {
        "drawn_groups": float(len(groups)),
        "flat_groups": flat / len(groups),
        "reward_std_in_group": spread,
        **means,
    }
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
    replaced: dict[str, Mapping[str, float]]
    """Sample -> score of the flat groups that this step has replaced by others."""
    _flat_kept: frozenset[str] = frozenset()
    """Flat groups that stay because enough were replaced."""
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
        stale, flat, lost, values = super()._terminal_eviction_reasons(global_steps, partition_id)
        room = MOST_REPLACED * (self.train_batch_size or 0) - len(set(map(_uid, self.replaced)))
        in_order = [uid for uid in self.prompt_global_steps[partition_id] if uid in flat]
        self._flat_kept = frozenset(in_order[room:])
        return stale, flat - self._flat_kept, lost, values

    def _evict_terminal_groups(
        self,
        global_steps: int,
        partition_id: str,
        eviction_reasons: tuple[set[str], set[str], set[str], Counter],
    ) -> tuple[set[str], int, int, dict[str, Any]]:
        flat = eviction_reasons[1]
        keys = [key for key in self.partitions[partition_id] if _uid(key) in flat]
        if keys:
            self.replaced.update(zip(keys, _scores(keys, partition_id), strict=True))
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict], dict[str, int]]:
        """The oldest first and flat groups last; verl's own order among equals is that of a set,
        another one in every process."""
        steps = dict(self.prompt_global_steps[partition_id])
        arrived = {uid: i for i, uid in enumerate(steps)}
        ordered = sorted(
            sampleable_keys,
            key=lambda uid: (uid in self._flat_kept, steps.get(uid, 0), arrived.get(uid, 0)),
        )
        return ordered[:batch_size], dict(self.partitions[partition_id]), steps

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        self.replaced = {}
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id != "val":
            if self.dump is not None:
                self.dump.write(global_steps, batch.keys, partition_id)
            of_batch = zip(batch.keys, _scores(batch.keys, partition_id), strict=True)
            drawn = {**self.replaced, **dict(of_batch)}
            scores = list(drawn.values())
            metrics.update(group_metrics(list(map(_uid, drawn)), scores, self.reward_manager))
            self.squeezing.add(*squeezer_calls(scores))
            if self.mini_batch:
                lengths = [tag["prompt_len"] for tag in batch.tags]
                uids = [_uid(key) for key in batch.keys]
                batch.reorder(grouped_order(uids, lengths, self.mini_batch))
        return batch, metrics


def _scores(keys: list[str], partition_id: str) -> list[Mapping[str, float]]:
    """What the reward manager said of each of these samples."""
    data: Any = tq.kv_batch_get(
        keys=keys, partition_id=partition_id, select_fields=["extra_fields"]
    )
    extra_fields = [getattr(value, "data", value) for value in data["extra_fields"]]
    return [fields["reward_extra_info"] for fields in extra_fields]


def _uid(key: str) -> str:
    """Of the prompt that a sample belongs to."""
    return key.split("_")[0]


class _StrictSync(_Strict):
    """For `trainer.v1.trainer_mode=sync`."""


class _StrictAsync(_Strict, ReplayBufferAsync):
    """For the asynchronous trainer modes."""
