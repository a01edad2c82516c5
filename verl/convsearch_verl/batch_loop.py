"""Roll-outs of a whole step in a few calls, for single-turn tasks with the rollout `hf_cpu`.

verl's agent loop makes several remote calls for every roll-out, which pays where roll-outs are long
and many servers work at once. With a small model on processors those calls take most of a step.
Here one call samples a batch, one scores it, and one stores it. Selected by
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hydra
import numpy as np
import ray
import torch
import transfer_queue as tq
from tensordict import NonTensorData, NonTensorStack, TensorDict
from torch.nn.utils.rnn import pad_sequence
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    AgentLoopWorker,
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
)
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.replica import TokenOutput

from convsearch.errors import ConfigError

logger = logging.getLogger(__name__)

LOOP = "single_turn_agent"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One roll-out to make: the training row, which of its roll-outs, and its prompt."""

    row: Row
    session: int
    prompt_ids: list[int]

    @property
    def key(self) -> str:
        """Name in verl's store: prompt, roll-out, and the place among the roll-out's outputs."""
        return f"{self.row['uid']}_{self.session}_0"


class BatchWorker(AgentLoopWorker):
    """Makes all roll-outs of the prompts it is given at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tq.init()
        self._running: set[asyncio.Task[None]] = set()
        self._loop: Any = None

    async def generate_sequences(self, batch: TensorDict) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the roll-outs of these prompts and returns; the results go to verl's store."""
        validate = bool(batch["validate"]) if "validate" in batch else False
        batch.pop("validate", None)
        task = asyncio.create_task(self._make(_rows(batch), validate))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _make(self, rows: list[Row], validate: bool) -> None:
        partition = "val" if validate else "train"
        uids = [row["uid"] for row in rows]
        await _set_status(uids, partition, "running")
        try:
            tasks = await self._tasks(rows, validate)
            sampled = await self._sample(tasks, validate)
            scores = await self._score(tasks, sampled)
            await self._store(tasks, sampled, scores, partition)
        except Exception:  # the trainer must learn of it, whatever it is: `replay` stops the run
            logger.exception("the roll-outs of %d prompts failed", len(rows))
            await _set_status(uids, partition, "failure")
            return
        await _set_status(uids, partition, "finished")

    async def _tasks(self, rows: list[Row], validate: bool) -> list[_Task]:
        count = self.rollout_config.val_kwargs.n if validate else self.rollout_config.n
        loop = self._single_turn_loop()
        tasks = []
        for row in rows:
            name = row.get("agent_name", LOOP)
            if name != LOOP:
                raise ConfigError(
                    f"agent_name {name!r}: agent_loop_manager_class=convsearch_verl.batch_loop."
                    f"BatchLoopManager runs {LOOP} only; leave the class out for other agents"
                )
            prompt_ids = await loop.ct_build_initial_tokens(list(row["raw_prompt"]))
            tasks += [_Task(row=row, session=i, prompt_ids=prompt_ids) for i in range(count)]
        return tasks

    def _single_turn_loop(self) -> Any:
        """verl's own single-turn loop, for the prompt's tokens."""
        if self._loop is None:
            self._loop = hydra.utils.instantiate(
                _agent_loop_registry[LOOP],
                trainer_config=DictConfigWrap(config=self.config),
                server_manager=self.llm_client,
                tokenizer=self.tokenizer,
                processor=self.processor,
                hf_model_type=self.hf_model_type,
                dataset_cls=self.dataset_cls,
                data_config=DictConfigWrap(self.config.data),
                tools=ToolListWrap(self.tools),
            )
        return self._loop

    async def _sample(self, tasks: list[_Task], validate: bool) -> list[TokenOutput]:
        """Samples on all servers, each a share of consecutive tasks."""
        config = self.rollout_config
        parameters = {
            "temperature": config.val_kwargs.temperature if validate else config.temperature,
            "logprobs": config.calculate_log_probs,
        }
        trainer = self.config.trainer
        shares = np.array_split(np.arange(len(tasks)), trainer.n_gpus_per_node * trainer.nnodes)
        acquired = [await self.llm_client._acquire_server(uuid.uuid4().hex) for _ in shares]
        try:
            calls = [
                server.generate_batch.remote([tasks[i].prompt_ids for i in share], parameters)
                for (_, server), share in zip(acquired, shares, strict=True)
            ]
            return [output for outputs in await asyncio.gather(*calls) for output in outputs]
        finally:
            for server_id, _ in acquired:
                self.llm_client._release_server(server_id)

    async def _score(self, tasks: list[_Task], sampled: list[TokenOutput]) -> list[Row]:
        """What the reward manager says of each roll-out."""
        handles = self.reward_loop_worker_handles
        if not handles:
            raise ConfigError("rewards must come from a reward manager, not from a reward model")
        data = _reward_input(tasks, [output.token_ids for output in sampled])
        return await random.choice(handles).compute_score_batch.remote(data)

    async def _store(
        self,
        tasks: list[_Task],
        sampled: list[TokenOutput],
        scores: list[Row],
        partition: str,
    ) -> None:
        fields, tags = [], []
        for task, output, score in zip(tasks, sampled, scores, strict=True):
            fields.append(_stored_fields(task, output, score))
            version = output.extra_fields["global_steps"]
            prompt_len, response_len = len(task.prompt_ids), len(output.token_ids)
            tags.append(
                {
                    "status": "success",
                    "prompt_len": prompt_len,
                    "response_len": response_len,
                    "seq_len": prompt_len + response_len,
                    "global_steps": task.row["global_steps"],
                    "min_global_steps": version,
                    "max_global_steps": version,
                }
            )
        await tq.async_kv_batch_put(
            keys=[task.key for task in tasks],
            fields=list_of_dict_to_tensordict(fields),
            tags=tags,
            partition_id=partition,
        )


class BatchLoopManager(AgentLoopManagerTQ):
    """verl's manager over `BatchWorker`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(BatchWorker)


def _rows(batch: TensorDict) -> list[Row]:
    """The training rows of a batch as verl hands it over."""
    rows: list[Row] = [{} for _ in range(len(batch))]
    for name, values in batch.items():
        for i, row in enumerate(rows):
            if isinstance(values, NonTensorStack):
                row[name] = values[i].data
            elif isinstance(values, NonTensorData):
                row[name] = values.data
            else:
                row[name] = values[i]
    return rows


async def _set_status(uids: list[str], partition: str, status: str) -> None:
    tags = [{"status": status} for _ in uids]
    await tq.async_kv_batch_put(keys=uids, partition_id=partition, tags=tags)


def _reward_input(tasks: Sequence[_Task], responses: Sequence[list[int]]) -> DataProto:
    """Prompts padded on the left, responses on the right, with the columns rewards look at."""
    prompts = [torch.tensor(task.prompt_ids) for task in tasks]
    answers = [torch.tensor(ids) for ids in responses]
    mask = torch.cat(
        [
            pad_sequence([torch.ones_like(p) for p in prompts], True, 0, "left"),
            pad_sequence([torch.ones_like(a) for a in answers], True, 0),
        ],
        dim=1,
    )
    batch = TensorDict(
        {
            "prompts": pad_sequence(prompts, True, 0, "left"),
            "responses": pad_sequence(answers, True, 0),
            "attention_mask": mask,
        },
        batch_size=len(tasks),
    )
    columns = {}
    for name in ("data_source", "reward_model", "extra_info", "uid"):
        columns[name] = np.empty(len(tasks), dtype=object)
        columns[name][:] = [task.row.get(name) for task in tasks]
    return DataProto(batch=batch, non_tensor_batch=columns)


def _stored_fields(task: _Task, output: TokenOutput, score: Row) -> Row:
    """One roll-out in the form of verl's single-turn loop."""
    version = output.extra_fields["global_steps"]
    made = AgentLoopOutput(
        prompt_ids=task.prompt_ids,
        response_ids=output.token_ids,
        response_mask=[1] * len(output.token_ids),
        response_logprobs=output.log_probs,
        reward_score=score["reward_score"],
        num_turns=2,
        metrics={},  # pyright: ignore[reportArgumentType]
        extra_fields={
            "global_steps": version,
            "min_global_steps": version,
            "max_global_steps": version,
            "turn_scores": [],
            "tool_rewards": [],
            "reward_extra_info": score["reward_extra_info"],
        },
    )
    fields = {**made.as_dict(), **task.row, "session_id": task.session}
    fields["input_ids"] = torch.cat([fields["prompts"], fields["responses"]])
    fields["position_ids"] = torch.arange(len(fields["input_ids"]))
    fields["loss_mask"] = fields["response_mask"]
    fields["multi_modal_inputs"] = {}
    return fields
