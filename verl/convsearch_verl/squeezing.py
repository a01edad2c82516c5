"""Squeezers in training: the same as at inference, opened from the node `search_agent`."""

import logging
from contextlib import closing
from pathlib import Path

from convsearch.agent.machine import estimate_tokens
from convsearch.agent.model_squeezer import ModelSqueezer, estimate_squeezing
from convsearch.agent.squeeze import CountTokens, ExtractiveSqueezer, Squeezer, SqueezeRequest
from convsearch.episodes.squeezing import engine_squeezer
from convsearch.errors import EngineError
from convsearch.infer.openai_engine import OpenaiEngine
from convsearch.retrieval.cache import AnswerCache
from convsearch.types import Passage
from convsearch_verl.agent_settings import NAME, AgentSettings

logger = logging.getLogger(__name__)

_TRIAL = SqueezeRequest(
    question="What is tea made of?",
    queries=("tea ingredients",),
    passages=(Passage(doc_id="trial", title="Tea", text="Tea is made of leaves and hot water."),),
)


def open_squeezer(settings: AgentSettings, count_tokens: CountTokens) -> Squeezer | None:
    """The squeezer of a worker; None passes the passages as they are. count_tokens: the policy's.

    `llm` counts by estimate, as it does at inference, so that both ask the same and share a cache.
    """
    if settings.squeezer == "none":
        return None
    if settings.squeezer == "extractive":
        return ExtractiveSqueezer(count_tokens)
    cache = AnswerCache(Path(settings.llm.cache)) if settings.llm.cache else None
    return _asking(settings, _endpoint(settings), cache)


def check_squeezer(settings: AgentSettings, episodes_per_step: int) -> None:
    """Before a run with `llm`: has one call squeezed, and says in the log what a step may cost.

    Raises EngineError where the endpoint does not answer.
    """
    if settings.squeezer != "llm":
        return
    with closing(_endpoint(settings)) as engine:
        [text] = _asking(settings, engine, None).squeeze([_TRIAL], settings.max_result_tokens)
    if text is None:
        raise EngineError(
            f"the squeezer {settings.llm.model!r} at {settings.llm.url} gave no text for a trial; "
            f"start the endpoint, or mend {NAME}.llm.url, {NAME}.llm.model or the key"
        )
    estimate = estimate_squeezing(
        episodes_per_step, settings.agent_strategy(), settings.search(), settings.llm.budget()
    )
    logger.warning("in every training step %s", estimate)


def _endpoint(settings: AgentSettings) -> OpenaiEngine:
    llm = settings.llm
    return OpenaiEngine(
        llm.model,
        llm.url,
        concurrency=llm.concurrency,
        attempts=llm.attempts,
        deadline_s=llm.deadline_s,
    )


def _asking(
    settings: AgentSettings, engine: OpenaiEngine, cache: AnswerCache | None
) -> ModelSqueezer:
    return engine_squeezer(
        engine,
        name=f"llm:{settings.llm.model}",
        max_tokens=settings.max_result_tokens,
        budget=settings.llm.budget(),
        count_tokens=estimate_tokens,
        cache=cache,
    )
