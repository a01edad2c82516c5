"""What an inference engine is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from convsearch.errors import ConfigError
from convsearch.types import ChatMessage


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn. Raises ConfigError for values outside their range."""

    temperature: float = 0.7
    """0 takes the most probable token each time; the paper samples at 0.7."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens that holds this share of the probability; 1 is all."""
    max_tokens: int = 1024
    """Longest response; the end token counts as one."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be 1 or more, got {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One response, or the reason why there is none."""

    text: str = ""
    thought: str = ""
    """What the model thought before, where the engine tells it apart from the text."""
    num_tokens: int = 0
    """Tokens of the response, its end token included; 0 where the engine does not say."""
    prompt_tokens: int = 0
    """Tokens of the prompt; 0 where the engine does not say."""
    prompt_ids: tuple[int, ...] | None = None
    """The prompt as the model read it; None where the engine does not say."""
    ids: tuple[int, ...] | None = None
    """The response as it was drawn; None where the engine does not say."""
    is_cut: bool = False
    """Whether it stopped at the limit of tokens and not at an end of its own."""
    error: str | None = None
    """Why this one prompt got no response; None where it got one."""


@runtime_checkable
class Engine(Protocol):
    """A language model that answers chats."""

    @property
    def identity(self) -> Mapping[str, str | int | float | None]:
        """What besides prompts, sampling and seeds decides the answers: engine, model, weights.

        Stored in the passport; a run resumes only under an equal identity.
        """
        ...

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """One generation for each chat, by position; seeds[i] decides the draws of chat i alone.

        A prompt that cannot be answered is a Generation with an error. Raises EngineError where
        the engine as a whole cannot answer.
        """
        ...

    def close(self) -> None:
        """Gives back what the engine holds; it answers no more."""
        ...


@dataclass(frozen=True, kw_only=True)
class Block:
    """Chats that are answered together, with a seed for each."""

    chats: Sequence[list[ChatMessage]]
    seeds: Sequence[int]


@runtime_checkable
class BlockEngine(Engine, Protocol):
    """An engine that works on several blocks at a time."""

    def generate_blocks(
        self, blocks: Iterable[Block], params: SamplingParams
    ) -> Iterator[tuple[int, list[Generation]]]:
        """(position of the block, its generations), as they get done. Takes a block from `blocks`
        only when there is somebody free to answer it. Raises as `generate` does."""
        ...
