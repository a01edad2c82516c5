"""How a rewriter is served."""

from dataclasses import dataclass

from convsearch.errors import ConfigError
from convsearch.infer.engine import SamplingParams
from convsearch.prompts import PromptStyle, PromptTemplate, rewrite_messages
from convsearch.prompts.asking import Asking
from convsearch.types import ChatMessage, Turn

API_KEY_VARIABLE = "REWRITER_API_KEY"


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Raises ConfigError for impossible numbers and prompts that the style does not have."""

    model: str
    """The name that clients ask for."""
    also: str | None = None
    """Another name that is understood."""
    style: PromptStyle
    """Of `/rewrite`; chats are sent to the model as they come."""
    shots: int = 0
    """Worked examples in the prompt of `/rewrite`."""
    template: PromptTemplate | None = None
    """The user's own prompt for `/rewrite`."""
    told: Asking | None = None
    """What the model's folder says of how to ask; explains malformed answers, decides nothing."""
    defaults: SamplingParams
    """Where a request does not say how to draw."""
    max_tokens_limit: int = 4096
    """Longest response that a request may ask for."""
    max_n: int = 16
    """Most responses to one chat."""
    max_batch: int = 64
    """Most responses that are generated together."""
    max_in_flight: int = 256
    """Requests being worked on; more are answered 503."""
    max_body_bytes: int = 1 << 20
    """Of one request; more is 413."""
    deadline_s: float = 120.0
    """Of one request; later is 504."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients may ask beside the listener's own; only looked at without a key."""
    api_key: str | None = None
    """Asked of every request but `/health`; None asks for nothing."""

    def __post_init__(self) -> None:
        for name in ("max_n", "max_batch", "max_in_flight", "max_body_bytes", "deadline_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.max_tokens_limit < self.defaults.max_tokens:
            raise ConfigError(
                f"max_tokens {self.defaults.max_tokens} is above the limit of "
                f"{self.max_tokens_limit}; lower it or raise the limit"
            )
        self.messages(Turn(qid="q", conv_id="c", turn=1, split="serve", question="?"))

    def messages(self, turn: Turn) -> list[ChatMessage]:
        """The prompt of `/rewrite`."""
        return rewrite_messages(turn, self.style, shots=self.shots, template=self.template)
