"""verl's rollout `hf_cpu`: transformers on processors, where vLLM is not to be had.

A server (a Ray actor) holds its own copy of the policy and samples from it; after every step the
training worker sends it the new weights. verl recomputes the probability of every sampled token, so
`training/rollout_probs_diff_max` shows whether the weights really arrived.
"""

import asyncio
import os
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any

import ray
import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from convsearch.errors import CheckpointError, ConfigError
from convsearch_verl.generation import Request, Sampled, Vocabulary, sample_batch

if TYPE_CHECKING:
    import numpy as np

NAME = "hf_cpu"
IDLE_S = 0.2
"""A batch leaves when it is full or when no request has come for so long."""
_WEIGHT_ROUND = 1_000_003
"""Keeps the seeds of different weight versions apart."""


def check_sampling(config: RolloutConfig) -> None:
    """Raises ConfigError for what this rollout does not do, by the name of its setting."""
    node = "actor_rollout_ref.rollout"
    for where, sampling in ((node, config), (f"{node}.val_kwargs", config.val_kwargs)):
        if float(sampling.top_p) != 1.0 or int(sampling.top_k) > 0:
            raise ConfigError(
                f"{where}: rollout.name={NAME} samples from the whole distribution; set top_p=1.0 "
                f"and top_k=-1 (found {sampling.top_p} and {sampling.top_k}), or use "
                "rollout.name=vllm"
            )
    for axis in ("tensor_model", "data", "pipeline_model"):
        name = f"{axis}_parallel_size"
        if getattr(config, name) != 1:
            raise ConfigError(f"{node}.{name} must be 1 with rollout.name={NAME}")
    if config.free_cache_engine:
        raise ConfigError(f"{node}.free_cache_engine must be False with rollout.name={NAME}")


class HfServer:
    """The Ray actor that samples. Requests that come together form one batch."""

    def __init__(self, config: Any, model_config: Any, replica_rank: int) -> None:
        from transformers import AutoModelForCausalLM

        self.config: RolloutConfig = omega_conf_to_dataclass(config)
        described: HFModelConfig = omega_conf_to_dataclass(
            model_config, dataclass_type=HFModelConfig
        )
        self.model = AutoModelForCausalLM.from_pretrained(
            str(described.local_path),
            dtype=getattr(torch, self.config.dtype),
            attn_implementation="sdpa",
        ).eval()
        tokenizer = described.tokenizer
        generation = self.model.generation_config
        eos = generation.eos_token_id if generation is not None else None
        eos = tokenizer.eos_token_id if eos is None else eos
        self.vocabulary = Vocabulary(
            size=min(len(tokenizer), self.model.config.vocab_size),
            eos_ids=tuple(eos) if isinstance(eos, list) else (eos,),
            pad_id=tokenizer.pad_token_id or 0,
            ignore_eos=self.config.ignore_eos,
        )
        self.seed = self.config.seed + replica_rank
        self.generator = torch.Generator().manual_seed(self.seed)
        self.global_steps: int | None = None
        self.queue: asyncio.Queue[tuple[Request, asyncio.Future[Sampled]]] = asyncio.Queue()
        self.loop_task: asyncio.Task[None] | None = None

    async def ready(self) -> bool:
        """Starts the loop that serves requests."""
        self.loop_task = asyncio.get_running_loop().create_task(self._serve())
        return True

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], **_: object
    ) -> TokenOutput:
        """One roll-out."""
        future: asyncio.Future[Sampled] = asyncio.get_running_loop().create_future()
        await self.queue.put((self._request(prompt_ids, sampling_params), future))
        return self._output(await future, sampling_params)

    async def generate_batch(
        self, prompts: list[list[int]], sampling_params: dict[str, Any]
    ) -> list[TokenOutput]:
        """One roll-out of each prompt, by position; a prompt may come several times."""
        requests = [self._request(prompt_ids, sampling_params) for prompt_ids in prompts]
        outputs: list[TokenOutput] = []
        for start in range(0, len(requests), self.config.max_num_seqs):
            block = requests[start : start + self.config.max_num_seqs]
            sampled = sample_batch(self.model, block, self.vocabulary, self.generator)
            outputs += [self._output(one, sampling_params) for one in sampled]
        return outputs

    def _request(self, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Request:
        room = self.config.prompt_length + self.config.response_length - len(prompt_ids)
        wanted = sampling_params.get("max_tokens") or sampling_params.get("max_new_tokens")
        return Request(
            prompt_ids=tuple(prompt_ids),
            max_tokens=max(1, min(int(wanted or self.config.response_length), room)),
            temperature=float(sampling_params.get("temperature", 1.0)),
        )

    def _output(self, sampled: Sampled, sampling_params: dict[str, Any]) -> TokenOutput:
        return TokenOutput(
            token_ids=sampled.token_ids,
            log_probs=sampled.log_probs if sampling_params.get("logprobs") else None,
            stop_reason="completed",
            extra_fields={"global_steps": self.global_steps},
        )

    async def _serve(self) -> None:
        while True:
            batch = [await self.queue.get()]
            while len(batch) < self.config.max_num_seqs:
                try:
                    batch.append(await asyncio.wait_for(self.queue.get(), IDLE_S))
                except asyncio.TimeoutError:
                    break
            try:
                results = sample_batch(
                    self.model, [request for request, _ in batch], self.vocabulary, self.generator
                )
            except Exception as error:  # every waiting caller must learn of it, whatever it is
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), sampled in zip(batch, results, strict=True):
                future.set_result(sampled)

    async def load_weights(
        self, state: dict[str, "np.ndarray"], global_steps: int | None = None
    ) -> None:
        """Replaces the whole policy. Raises CheckpointError where a name is missing or unknown."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
        missing, unexpected = self.model.load_state_dict(tensors, strict=False)
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        wrong = sorted(set(missing) - tied) + sorted(unexpected)
        if wrong:
            raise CheckpointError(
                f"the rollout got weights that do not fit its model, first {wrong[0]}"
            )
        if global_steps is not None:
            self.global_steps = global_steps
            self.generator.manual_seed(self.seed + _WEIGHT_ROUND * (global_steps + 1))

    async def wake_up(self, tags: list[str] | None = None) -> None: ...
    async def sleep(self) -> None: ...
    async def clear_kv_cache(self) -> None: ...
    async def release_kv_cache(self) -> None: ...
    async def resume_kv_cache(self) -> None: ...
    async def resume_generation(self) -> None: ...
    async def start_profile(self, **_: object) -> None: ...
    async def stop_profile(self) -> None: ...

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, object]:
        return {"aborted_count": 0, "request_ids": []}

    async def get_rollout_config(self) -> RolloutConfig:
        return self.config


class HfReplica(RolloutReplica):
    """One server beside one training worker."""

    async def launch_servers(self) -> None:
        """Starts the server. Raises ConfigError for settings it cannot honour."""
        check_sampling(self.config)
        actor: Any = ray.remote(HfServer)
        actor = actor.options(
            name=_server_name(self.replica_rank),
            max_concurrency=self.max_concurrency,
            num_cpus=0,
        )
        server: Any = actor.remote(self.config, self.model_config, self.replica_rank)
        await server.ready.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = f"{NAME}:{self.replica_rank}"


class WeightSender(BaseRollout):
    """The training worker's side: sends the policy to the server of its rank."""

    def __init__(
        self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1
    ) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self.is_leader_rank = True
        self.sleep_level = 2
        self._server: Any = None

    async def resume(self, tags: list[str]) -> None: ...
    async def release(self) -> None: ...

    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]] | AsyncIterable[tuple[str, torch.Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: object,
    ) -> None:
        """Sends all weights. Every rank drains the iterator: gathering a shard is collective."""
        from verl.workers.rollout.utils import ensure_async_iterator

        state: dict[str, np.ndarray] = {}
        async for name, weight in ensure_async_iterator(weights):
            state[name] = weight.detach().float().cpu().numpy()
        if self._server is None:
            self._server = ray.get_actor(_server_name(self.replica_rank))
        await self._server.load_weights.remote(state, global_steps)


def _server_name(replica_rank: int) -> str:
    return f"{NAME}_server_{replica_rank}_0"
