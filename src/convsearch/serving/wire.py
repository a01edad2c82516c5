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
    """Unknown fields are refused; a field that is null counts as absent."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, sent: object) -> object:
        if not isinstance(sent, dict):
            return sent
        return {name: value for name, value in sent.items() if value is not None}


class _Body(_Strict):
    """A whole request. Halves of surrogate pairs, which JSON can carry and no tokenizer can read,
    become "?" in all its texts, as `/retrieve` reads its queries."""

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, sent: object) -> object:
        try:
            return _readable(sent)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _readable(sent: object) -> object:
    if isinstance(sent, str):
        return sent if sent.isascii() else sent.encode("utf-8", "replace").decode("utf-8")
    if isinstance(sent, list):
        return [_readable(item) for item in sent]
    if isinstance(sent, dict):
        return {_readable(name): _readable(value) for name, value in sent.items()}
    return sent


class TextPart(_Strict):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: str


Content = str | list[TextPart]


def _text_of(content: Content) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


class SentMessage(_Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_says_nothing(cls, sent: object) -> object:
        """An answer that a client sends back has these, empty."""
        if not isinstance(sent, dict):
            return sent
        said = {k: v for k, v in sent.items() if v != [] or k not in ("annotations", "tool_calls")}
        if said.get("role") == "assistant" and "content" in said and said["content"] is None:
            said["content"] = ""
        return said

    def as_chat_message(self) -> ChatMessage:
        """As chat templates take it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": _text_of(self.content)}


class StreamOptions(_Strict):
    """Of `stream`."""

    include_usage: bool = False


Temperature = Annotated[float | None, Field(ge=0, allow_inf_nan=False)]
TopP = Annotated[float | None, Field(gt=0, le=1)]
Tokens = Annotated[int | None, Field(ge=1)]
Seed = Annotated[int | None, Field(ge=0, lt=2**63)]


class ChatRequest(_Body):
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
    """One utterance before the question: `text` as in `turns.jsonl`, or `content` as in a chat."""

    role: Literal["user", "agent", "assistant"]
    text: str | None = None
    content: Content | None = None

    @model_validator(mode="after")
    def _says_it_once(self) -> "SaidMessage":
        if (self.text is None) == (self.content is None):
            raise ValueError('give "text" or "content"')
        return self

    @property
    def said(self) -> str:
        """What was said."""
        return _text_of(self.content) if self.content is not None else self.text or ""


class RewriteRequest(_Body):
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
