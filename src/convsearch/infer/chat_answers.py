"""What an OpenAI-compatible endpoint answers, read without trust in its types.

A number that is none counts as 0, a field of another type as absent; an answer without a choice or
a text is a Generation with an error. Reasoning models have their thought in a field of its own
(`reasoning_content` of DeepSeek, SGLang and vLLM, `reasoning` of newer vLLM, Ollama and routers) or
as a part of the content; it is told apart from the text.
"""

from collections.abc import Mapping

from convsearch.errors import DataError
from convsearch.infer.engine import Generation
from convsearch.texts import json_value

_EXCERPT_CHARS = 200
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
"""Fields of a message with the thought, the most usual first; the first that has one counts."""
_TEXTS = ("text", "content", "thinking", "reasoning", "summary")
"""Fields of a part with its words."""
_DEEPEST = 8
"""Parts within parts that are looked into."""


def read_completion(content: bytes) -> Generation:
    """The first choice of a chat completion, from the body of a response."""
    try:
        answer = _mapping(json_value(content, "the answer", allow_nan=True))
    except DataError:
        answer = {}
    choices = answer.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        return Generation(error=f"not a chat completion: {excerpt(content)}")
    said = message.get("content")
    parts = said if isinstance(said, list) else [said]
    text = _text_of([part for part in parts if not _is_thought(part)])
    thought = _text_of([part for part in parts if _is_thought(part)])
    for name in _THOUGHTS:
        thought = thought or _text_of(message.get(name))
    is_cut = choice.get("finish_reason") == "length"
    if not (isinstance(said, str | list | dict) or thought or is_cut):
        return Generation(error=f"the answer has no text content: {excerpt(content)}")
    usage = _mapping(answer.get("usage"))
    return Generation(
        text=text,
        thought=thought,
        num_tokens=_count(usage.get("completion_tokens")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        prompt_ids=_ids(answer.get("prompt_token_ids")),
        ids=_ids(choice.get("token_ids")),
        is_cut=is_cut,
    )


def excerpt(content: bytes) -> str:
    """The beginning of a body, on one line."""
    return " ".join(content[: 8 * _EXCERPT_CHARS].decode("utf-8", "replace").split())[
        :_EXCERPT_CHARS
    ]


def _text_of(value: object, depth: int = 0) -> str:
    """The words of a text, of a part, or of a list of them."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(_text_of(part, depth + 1) for part in value)
    if isinstance(value, dict):
        found = (_text_of(value.get(name), depth + 1) for name in _TEXTS)
        return next(filter(None, found), "")
    return ""


def _is_thought(part: object) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind.startswith(("thinking", "reasoning"))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    """A count of tokens; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _ids(value: object) -> tuple[int, ...] | None:
    """A list of ids; None for anything else."""
    if isinstance(value, list) and all(type(i) is int and i >= 0 for i in value):
        return tuple(value)
    return None
