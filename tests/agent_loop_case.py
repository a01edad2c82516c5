"""verl's agent loop of search agents, driven by a scripted rollout over real HTTP servers."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from agent_case import PASSAGES, call, some_questions
from convsearch_verl.search_loop import EPISODE, SearchAgentLoop
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap
from verl.workers.rollout.replica import TokenOutput

from convsearch.agent.frames import ChatFrames
from convsearch.agent.records import parse_episode
from convsearch.infer.token_engine import TokenGeneration
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Episode, Passage, Question

PROMPT, RESPONSE = 2048, 4096
Said = Sequence[str]


class CountingRetriever(InMemoryRetriever):
    """Remembers every query."""

    def __init__(self, passages: Sequence[Passage] = PASSAGES) -> None:
        super().__init__(passages)
        self.queries: list[str] = []

    def search(self, queries: Sequence[str], topk: int) -> list[list[Any]]:
        self.queries += queries
        return super().search(queries, topk)


class ScriptedIds:
    """Says the n-th text in the n-th turn, as ids of a real tokenizer: an engine of inference and,
    by `generate`, a rollout server of training."""

    def __init__(self, tokenizer: Any, texts: Said) -> None:
        self.identity = {"engine": "scripted"}
        self.tokenizer, self.texts = tokenizer, texts
        self.frames = ChatFrames(tokenizer, frozenset({tokenizer.eos_token_id}))
        self.chat_ids, self.reply_ids = self.frames.chat_ids, self.frames.reply_ids
        self.asked: list[dict[str, Any]] = []
        self.drawn: list[tuple[list[int], list[int]]] = []

    def say(self, prompt: Sequence[int], limit: int, inline: bool) -> list[int]:
        dialogue = self.tokenizer.decode(prompt)
        mark = "</information>\n\n" if inline else "<|im_start|>assistant"
        turn = dialogue.split("Question:")[-1].count(mark) - (0 if inline else 1)
        ids = self.tokenizer.encode(self.texts[turn], add_special_tokens=False)
        ended = ids if inline else [*ids, self.tokenizer.eos_token_id]
        self.drawn.append((list(prompt), ended[:limit]))
        return ended[:limit]

    def generate_ids(self, prompts: Any, params: Any, seeds: Any, stop: Any = ()) -> Any:
        made = [self.say(prompt, params.max_tokens, bool(stop)) for prompt in prompts]
        return [
            TokenGeneration(
                ids=tuple(ids), text=self.tokenizer.decode(ids, skip_special_tokens=True)
            )
            for ids in made
        ]

    def close(self) -> None: ...

    def generate_chats(self, *_: object) -> Any: ...

    async def generate(self, request_id: str, **asked: Any) -> TokenOutput:
        self.asked.append({"request_id": request_id, **asked})
        sampling = asked["sampling_params"]
        ids = self.say(asked["prompt_ids"], sampling["max_tokens"], "stop" in sampling)
        version = len(self.asked)
        return TokenOutput(
            token_ids=ids,
            log_probs=[-1.0 - i for i in range(len(ids))],
            extra_fields={"min_global_steps": version, "max_global_steps": version + 10},
        )


def config_of(url: str | None, *, rollout: str = "vllm", **agent: Any) -> Any:
    sizes = {"prompt_length": agent.pop("prompt", PROMPT), "response_length": RESPONSE}
    sizes["response_length"] = agent.pop("response", RESPONSE)
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": {"name": rollout, **sizes}},
            "data": {},
            "retriever": {"url": url, "timeout_s": 5.0, "attempts": 1, "max_wait_s": 0.2},
            "search_agent": {"tool_format": "plain", "topk": 2, **agent},
            "reward": {"custom_reward_function": {"path": None}},
        }
    )


def row_of(question: Question) -> dict[str, Any]:
    """The columns of a training row, as verl hands them to a loop."""
    return {
        "raw_prompt": [{"role": "user", "content": question.question}],
        "reward_model": {"style": "rule", "ground_truth": list(question.answers)},
        "extra_info": {
            "question": question.question,
            "query_id": question.qid,
            "golds": np.array(["d1"], dtype=object),
            "type": question.type,
        },
    }


def play(
    server: ScriptedIds, config: Any, questions: Sequence[Question] | None = None
) -> list[AgentLoopOutput]:
    """All questions at once, each with a loop of its own, as verl's worker does it."""

    async def one(question: Question) -> AgentLoopOutput:
        loop = SearchAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,  # pyright: ignore[reportArgumentType]
            tokenizer=server.tokenizer,
            processor=None,  # pyright: ignore[reportArgumentType]
            dataset_cls=None,  # pyright: ignore[reportArgumentType]
            data_config=DictConfigWrap(config.data),
        )
        return await loop.run({"temperature": 1.0, "logprobs": True}, **row_of(question))

    async def run() -> list[AgentLoopOutput]:
        return await asyncio.gather(*(one(q) for q in questions or some_questions(1)))

    return asyncio.run(run())


def episode_of(output: AgentLoopOutput) -> Episode:
    return parse_episode(json.loads(output.extra_fields[EPISODE]), "test")


def script(form: str, *more: str) -> list[str]:
    return [call(form, *(["Ada program", "engine"][: 1 if form == "search_r1" else 2])), *more]
