"""One agent and the engine that speaks for it: by ids where it takes them, else by chats.

Over ids a prompt only grows. An endpoint of chats renders the whole chat anew in every turn. Where
it tells the ids, each prompt is compared with those before it. Where it does not, prompts are
counted as `prefix_unknown`, or as `prefix_violations` where its own counts of tokens prove that
ids were dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convsearch.agent import AgentState, TokenTrack, fail, messages, step
from convsearch.agent.formats import ToolFormat
from convsearch.agent.machine import estimate_tokens
from convsearch.errors import ConfigError, EngineError
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.infer.token_engine import TokenEngine
from convsearch.types import derive_seed


@dataclass(kw_only=True)
class RenderedPrompts:
    """Prompts of one dialogue that an endpoint rendered from messages."""

    violations: int = 0
    """Shorter than what came before them, so that ids are missing."""
    unknown: int = 0
    """Long enough, or not counted by the endpoint: whether they begin with the ids before them is
    not known."""
    num_before: int | None = None
    """Tokens of the last prompt and of the text that followed it; None before the first prompt."""

    def add(self, prompt_tokens: int, num_tokens: int) -> None:
        """One prompt and its continuation; 0 where the endpoint does not say."""
        if self.num_before is not None:
            dropped = 0 < prompt_tokens < self.num_before
            self.violations += dropped
            self.unknown += not dropped
        self.num_before = prompt_tokens + num_tokens if prompt_tokens else 0


@dataclass(kw_only=True)
class Dialogue:
    """An episode in progress."""

    state: AgentState
    seed: int
    """Of the run; each turn draws from a seed of its own, derived from it and the qid."""
    track: TokenTrack = field(default_factory=TokenTrack)
    """The ids and who wrote them; stays empty where the engine takes chats and tells no ids."""
    rendered: RenderedPrompts = field(default_factory=RenderedPrompts)
    """What is known of the prompts where the engine takes chats."""
    num_read: int = 0
    """Spans whose ids are in the track."""
    seconds: float = 0.0
    """From the beginning of its block until its end, in the company of the block."""

    @property
    def is_over(self) -> bool:
        """Whether the agent wants nothing more."""
        return self.state.wants == "nothing"

    @property
    def turn_seed(self) -> int:
        """Seed of the next text."""
        return derive_seed(self.seed, self.state.qid, self.state.num_turns)


def check_engine(engine: Engine, form: ToolFormat) -> None:
    """Raises ConfigError where the engine cannot hold such a dialogue."""
    if form.inline and not isinstance(engine, TokenEngine):
        raise ConfigError(
            f"tool format {form.name!r} continues the model's own turn, which engine "
            f"{engine.identity.get('engine')!r} cannot do; choose --engine transformers "
            "or vllm, or another --format"
        )


def token_counter(engine: Engine) -> Callable[[str], int]:
    """The engine's own count of a text's tokens, or an estimate where it takes chats."""
    if isinstance(engine, TokenEngine):
        return lambda text: len(engine.reply_ids(text, None))
    return estimate_tokens


def speak(engine: Engine, dialogues: Sequence[Dialogue], params: SamplingParams) -> None:
    """Every dialogue wants a text and gets one, all in one batch; one that the engine cannot
    answer fails alone. Raises EngineError where the engine as a whole fails."""
    if isinstance(engine, TokenEngine):
        _speak_ids(engine, dialogues, params)
        return
    chats = [messages(dialogue.state) for dialogue in dialogues]
    made = engine.generate(chats, params, [dialogue.turn_seed for dialogue in dialogues])
    _check_count(engine, len(made), len(dialogues))
    for dialogue, generation in zip(dialogues, made, strict=True):
        if generation.error is not None:
            dialogue.state = fail(dialogue.state, generation.error)
        else:
            _note(dialogue, generation)
            dialogue.state, _ = step(dialogue.state, generation.text, generation.num_tokens)


def _note(dialogue: Dialogue, generation: Generation) -> None:
    """What the endpoint tells of the prompt that it rendered."""
    if generation.prompt_ids is not None and generation.ids is not None:
        dialogue.track = dialogue.track.extend_to(generation.prompt_ids).sampled(generation.ids)
    else:
        dialogue.rendered.add(generation.prompt_tokens, generation.num_tokens)


def _speak_ids(engine: TokenEngine, dialogues: Sequence[Dialogue], params: SamplingParams) -> None:
    for dialogue in dialogues:
        dialogue.track = _read(engine, dialogue)
        dialogue.num_read = len(dialogue.state.spans)
    made = engine.generate_ids(
        [dialogue.track.ids for dialogue in dialogues],
        params,
        [dialogue.turn_seed for dialogue in dialogues],
        dialogues[0].state.form.stop if dialogues else (),
    )
    _check_count(engine, len(made), len(dialogues))
    for dialogue, generation in zip(dialogues, made, strict=True):
        if generation.error is not None:
            dialogue.state = fail(dialogue.state, generation.error)
            continue
        dialogue.track = dialogue.track.sampled(generation.ids)
        dialogue.num_read += 1
        dialogue.state, _ = step(dialogue.state, generation.text, len(generation.ids))


def _read(engine: TokenEngine, dialogue: Dialogue) -> TokenTrack:
    """The track with what tools wrote since the model's last text."""
    state, track = dialogue.state, dialogue.track
    if not track.ids:
        return track.given(engine.chat_ids(messages(state)))
    for span in state.spans[dialogue.num_read :]:
        after = None if state.form.inline else track.ids
        track = track.given(engine.reply_ids(span.text, after))
    return track


def _check_count(engine: Engine, made: int, wanted: int) -> None:
    if made != wanted:
        raise EngineError(
            f"engine {engine.identity.get('engine')} gave {made} answers to {wanted} prompts"
        )
