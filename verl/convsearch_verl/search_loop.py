"""verl's agent loop `search_agent`: the state machine of `convsearch.agent`, driven in training.

The driver of inference is `convsearch.episodes`; both hand the same machine the same texts, and
both only ever append ids. Here a rollout server draws the ids, they are kept as drawn, and the mask
is 1 on them and on nothing else. A retrieval server that fails raises: the run stops (`replay`).
"""

import asyncio
import copy
import json
import time
import uuid
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from convsearch.agent import (
    AgentState,
    Evidence,
    TokenTrack,
    exhaust,
    messages,
    observe,
    start,
    step,
    to_episode,
)
from convsearch.agent.frames import ChatFrames
from convsearch.agent.search import Call, SearchTool
from convsearch.errors import ConfigError, DataError, EngineError
from convsearch_verl.agent_settings import NAME, AgentSettings, agent_settings, check_rollout
from convsearch_verl.micro_batch import MicroBatcher
from convsearch_verl.settings import RetrieverSettings, retriever_settings
from convsearch_verl.squeezing import open_squeezer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from verl.workers.rollout.replica import TokenOutput

BATCHES = 32
"""Batches of calls under way in a worker, in threads of their own: a slow squeezer must not take
those that verl shares."""
EPISODE = "episode"
"""Key of the finished episode, as JSON, in the extra fields of an output."""


class Searches:
    """What all episodes of a worker share: the frames of the chat, and one search tool.

    Calls that come together are one request to the server, made in a thread, as is what a squeezer
    asks of its endpoint: nothing waits in the event loop.
    """

    def __init__(
        self,
        settings: AgentSettings,
        retriever: RetrieverSettings,
        tokenizer: "PreTrainedTokenizerBase",
        template: Mapping[str, object],
    ) -> None:
        from convsearch.retrieval.client import RetrieverClient

        own = copy.deepcopy(tokenizer)  # threads count tokens with it; verl pads with the other
        self.frames = ChatFrames(own, frozenset(own.all_special_ids), template)
        self._tool = SearchTool(
            RetrieverClient(
                retriever.url, timeout_s=retriever.timeout_s, attempts=retriever.attempts
            ),
            settings.search(),
            squeezer=open_squeezer(settings, self.count_tokens),
            count_tokens=self.count_tokens,
        )
        self._threads = ThreadPoolExecutor(BATCHES, thread_name_prefix=NAME)
        self._batcher = MicroBatcher[Call, Evidence](
            self._answer, batch_size=retriever.batch_size, max_wait_s=retriever.max_wait_s
        )

    def count_tokens(self, text: str) -> int:
        """As the inference driver counts: the ids that the text adds to a turn."""
        return len(self.frames.reply_ids(text, None))

    async def answer(self, call: Call) -> Evidence:
        """Raises RetrieverError where the server does not answer within its deadline."""
        return await self._batcher.submit(call)

    async def _answer(self, calls: list[Call]) -> list[Evidence]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._tool.answer, calls)


@dataclass(kw_only=True)
class _Rollout:
    """One episode in progress."""

    state: AgentState
    track: TokenTrack
    log_probs: list[float] | None
    """Of every id in the track, 0.0 where it was given; None where the rollout tells none."""
    num_read: int = 0
    """Spans whose ids are in the track."""
    first_version: int | None = None
    last_version: int | None = None
    generating_s: float = 0.0
    searching_s: float = 0.0


@register(NAME)
class SearchAgentLoop(AgentLoopBase):
    """One episode. verl makes an instance for each; what they share is in `Searches`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises ConfigError for settings that are wrong or that the rollout cannot honour."""
        super().__init__(*args, **kwargs)
        self.settings = agent_settings(_node(self.config, NAME))
        check_rollout(self.settings, str(self.rollout_config.name))
        self.searches = _shared(
            self.settings,
            retriever_settings(_node(self.config, "retriever")),
            self.tokenizer,  # pyright: ignore[reportArgumentType] - verl names the factory
            _node(self.data_config, "apply_chat_template_kwargs") or {},
        )

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Plays one question of the training file.

        kwargs: columns of the row; `extra_info` names the question and its id. Raises DataError
        for a row without them, ConfigError for a prompt longer than data.max_prompt_length, what
        the rollout raises, and RetrieverError where a search fails.
        """
        qid, question = _asked(kwargs.get("extra_info"))
        settings = self.settings
        state = start(
            qid,
            question,
            settings.agent_strategy(),
            settings.form(),
            count_tokens=self.searches.count_tokens,
        )
        known = [] if sampling_params.get("logprobs") else None
        rollout = _Rollout(state=state, track=TokenTrack(), log_probs=known)
        request_id = uuid.uuid4().hex
        while rollout.state.wants != "nothing":
            if rollout.state.wants == "results":
                await self._search(rollout)
            else:
                await self._speak(rollout, request_id, sampling_params)
        return _output(rollout)

    async def _search(self, rollout: _Rollout) -> None:
        began = time.monotonic()
        call = Call(question=rollout.state.question, queries=rollout.state.pending)
        rollout.state = observe(rollout.state, await self.searches.answer(call))
        rollout.searching_s += time.monotonic() - began

    async def _speak(
        self, rollout: _Rollout, request_id: str, sampling_params: dict[str, Any]
    ) -> None:
        """One text of the model; ends the episode where no token fits any more."""
        self._read(rollout)
        track = rollout.track
        room = self.rollout_config.response_length - (len(track.ids) - track.num_prompt)
        if room < 1:
            rollout.state = exhaust(rollout.state)
            return
        stop = list(rollout.state.form.stop)
        began = time.monotonic()
        made = await self.server_manager.generate(
            request_id,
            prompt_ids=list(track.ids),
            sampling_params={
                **sampling_params,
                "max_tokens": min(room, self.settings.max_turn_tokens or room),
                **({"stop": stop, "include_stop_str_in_output": True} if stop else {}),
            },
        )
        rollout.generating_s += time.monotonic() - began
        ids = made.token_ids[:room]
        if not ids:
            raise EngineError(
                f"the rollout gave no token for {rollout.state.qid!r} "
                f"(stop reason: {made.stop_reason})"
            )
        self._take(rollout, ids, made)

    def _read(self, rollout: _Rollout) -> None:
        """Appends what the model has not read yet: the opening prompt, results, corrections."""
        state, track = rollout.state, rollout.track
        if not track.ids:
            opening = self.searches.frames.chat_ids(messages(state))
            limit = self.rollout_config.prompt_length
            if len(opening) > limit:
                raise ConfigError(
                    f"the prompt of question {state.qid!r} has {len(opening)} tokens and "
                    f"data.max_prompt_length is {limit}; raise it: a prompt that loses its "
                    "beginning loses its instruction"
                )
            track = track.given(opening)
        else:
            for span in state.spans[rollout.num_read :]:
                after = None if state.form.inline else track.ids
                track = track.given(self.searches.frames.reply_ids(span.text, after))
        if rollout.log_probs is not None:
            rollout.log_probs += [0.0] * (len(track.ids) - len(rollout.log_probs))
        rollout.track, rollout.num_read = track, len(state.spans)

    def _take(self, rollout: _Rollout, ids: list[int], made: "TokenOutput") -> None:
        """Appends ids exactly as they were drawn, and tells the machine their text."""
        rollout.track = rollout.track.sampled(ids)
        rollout.num_read += 1
        if rollout.log_probs is not None:
            if made.log_probs is None or len(made.log_probs) < len(ids):
                raise EngineError("the rollout gave fewer log-probabilities than tokens")
            rollout.log_probs += made.log_probs[: len(ids)]
        version = made.extra_fields.get("global_steps")
        first = made.extra_fields.get("min_global_steps", version)
        rollout.first_version = first if rollout.first_version is None else rollout.first_version
        rollout.last_version = made.extra_fields.get("max_global_steps", version)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))  # pyright: ignore
        rollout.state, _ = step(rollout.state, text, len(ids))


def _output(rollout: _Rollout) -> AgentLoopOutput:
    """The episode as verl takes it. What the model never answered to is left off at the end."""
    state, track = rollout.state, rollout.track
    begin = track.num_prompt
    end = max(i for i, drawn in enumerate(track.mask) if drawn) + 1
    known = rollout.log_probs
    return AgentLoopOutput(
        prompt_ids=list(track.ids[:begin]),
        response_ids=list(track.ids[begin:end]),
        response_mask=[int(drawn) for drawn in track.mask[begin:end]],
        response_logprobs=None if known is None else known[begin:end],
        num_turns=1 + len(state.spans),
        metrics=AgentLoopMetrics(
            generate_sequences=rollout.generating_s, tool_calls=rollout.searching_s
        ),
        extra_fields={
            "global_steps": rollout.last_version,
            "min_global_steps": rollout.first_version,
            "max_global_steps": rollout.last_version,
            "turn_scores": [],
            "tool_rewards": [],
            EPISODE: json.dumps(asdict(to_episode(state)), ensure_ascii=False),
        },
    )


def _asked(extra_info: object) -> tuple[str, str]:
    """Id and text of the question of a row."""
    info = extra_info if isinstance(extra_info, Mapping) else {}
    qid, question = info.get("query_id"), info.get("question")
    if not (isinstance(qid, str) and qid and isinstance(question, str) and question.strip()):
        raise DataError(
            "a training row has no extra_info.query_id or no extra_info.question; make the file "
            'with "convsearch data agent-prompts"'
        )
    return qid, question


def _node(config: Any, name: str) -> dict[str, object] | None:
    node = config.get(name)
    if isinstance(node, DictConfig):
        return OmegaConf.to_container(node, resolve=True)  # pyright: ignore[reportReturnType]
    return None if node is None else dict(node)


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Searches]] = (
    weakref.WeakKeyDictionary()
)


def _shared(
    settings: AgentSettings,
    retriever: RetrieverSettings,
    tokenizer: "PreTrainedTokenizerBase",
    template: Mapping[str, object],
) -> Searches:
    """The worker's own, made for its first episode; a batcher belongs to one event loop."""
    made = _by_loop.setdefault(asyncio.get_running_loop(), {})
    key = (settings, retriever, id(tokenizer), repr(template))
    if key not in made:
        made[key] = Searches(settings, retriever, tokenizer, template)
    return made[key]
