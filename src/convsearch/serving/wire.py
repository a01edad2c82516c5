"""What the rewriter service takes and gives. Chats are in the form that OpenAI published."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from convsearch.types import ChatMessage, Status

MAX_STOPS = 16
WITHOUT_EFFECT = ("user", "metadata", "store", "service_tier", "parallel_tool_calls")
"""Fields that clients send and that change nothing here."""
ONLY_AT_REST: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
}
"""Fields that are taken with a value that asks for nothing (or null), and refused otherwise."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: str


class SentMessage(_Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def as_chat_message(self) -> ChatMessage:
        """As chat templates take it."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(_Strict):
    """Of `stream`."""

    include_usage: bool = False


Temperature = Annotated[float | None, Field(ge=0, allow_inf_nan=False)]
TopP = Annotated[float | None, Field(gt=0, le=1)]
Tokens = Annotated[int | None, Field(ge=1)]
Seed = Annotated[int | None, Field(ge=0, lt=2**63)]


class ChatRequest(_Strict):
    """The body of `POST /v1/chat/completions`; what is absent is the server's default."""

    model: str
    messages: Annotated[list[SentMessage], Field(min_length=1)]
    temperature: Temperature = None
    top_p: TopP = None
    n: Annotated[int, Field(ge=1)] = 1
    seed: Seed = None
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, sent: object) -> object:
        if not isinstance(sent, dict):
            return sent
        asked = {key: value for key, value in sent.items() if key not in WITHOUT_EFFECT}
        for name, resting in ONLY_AT_REST.items():
            if (value := asked.pop(name, None)) is not None and value not in resting:
                raise ValueError(f"{name} is not supported; this server writes text and no more")
        return asked

    @field_validator("stop")
    @classmethod
    def _stops_hold_something(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if stop is not None and not all([stop] if isinstance(stop, str) else stop):
            raise ValueError("a stop string must not be empty")
        return stop

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class SaidMessage(_Strict):
    """One utterance before the question, as in `turns.jsonl`."""

    role: Literal["user", "agent", "assistant"]
    text: str


class RewriteRequest(_Strict):
    """The body of `POST /rewrite`; what is absent is the server's default."""

    question: str
    history: list[SaidMessage] = []
    temperature: Temperature = None
    top_p: TopP = None
    max_tokens: Tokens = None
    seed: Seed = None


class RewriteAnswer(BaseModel):
    """The answer of `/rewrite`. `query` is what to search in any case: the rewrite, or the raw
    question where `status` is not `ok`."""

    query: str
    status: Status
    rewrite: str | None
    think: str | None
    response: str
    error: str | None
    model: str
    seed: int
    num_tokens: int


class ErrorBody(BaseModel):
    """What an error says, in OpenAI's form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """Every answer that is an error."""

    error: ErrorBody
