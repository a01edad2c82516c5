"""Squeezers on the project's inference engines: an endpoint, or a model in this process."""

import json
from collections.abc import Sequence

from convsearch.agent.model_squeezer import ModelSqueezer, SqueezeBudget, Squeezed
from convsearch.agent.squeeze import CountTokens
from convsearch.infer.engine import Engine, SamplingParams
from convsearch.retrieval.cache import AnswerCache
from convsearch.types import ChatMessage

BATCH = 64
"""Calls that are squeezed at once; the engine of an endpoint sends fewer at a time."""


def engine_squeezer(
    engine: Engine,
    *,
    name: str,
    max_tokens: int,
    budget: SqueezeBudget,
    count_tokens: CountTokens,
    cache: AnswerCache | None = None,
) -> ModelSqueezer:
    """A greedy squeezer over an engine, whose own deadline, retries and concurrency apply.

    A call that the engine cannot answer is a failure of that call.
    """
    params = SamplingParams(temperature=0, max_tokens=max_tokens)

    def generate(chats: Sequence[list[ChatMessage]]) -> list[Squeezed]:
        made: list[Squeezed] = []
        for start in range(0, len(chats), BATCH):
            part = chats[start : start + BATCH]
            for answer in engine.generate(part, params, [0] * len(part)):
                text = None if answer.error is not None else answer.text
                made.append(Squeezed(text, answer.num_tokens or count_tokens(answer.text)))
        return made

    identity = json.dumps([dict(engine.identity), max_tokens], sort_keys=True)
    return ModelSqueezer(
        generate,
        name=name,
        identity=identity,
        budget=budget,
        count_tokens=count_tokens,
        cache=cache,
    )
