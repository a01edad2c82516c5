"""The prompt styles by name: what each asks, and how its answer is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from convsearch.errors import ConfigError
from convsearch.prompts import cot, plain, pseudo_document, reasoning
from convsearch.prompts.examples import WORKED_EXAMPLES
from convsearch.prompts.tagged import INSTRUCTION, instruct_messages, nano_messages
from convsearch.prompts.tags import ParsedRewrite, format_response, parse_rewrite
from convsearch.prompts.template import PromptTemplate
from convsearch.types import ChatMessage, Turn

__all__ = [
    "PROMPT_STYLES",
    "TRAINED_STYLES",
    "ParsedRewrite",
    "PromptStyle",
    "TrainedStyle",
    "format_response",
    "parse_response",
    "parse_rewrite",
    "rewrite_messages",
    "style_of_chat",
    "trained_style",
    "well_formed_response",
]

TrainedStyle = Literal["instruct", "nano"]
"""Styles that policies are trained in: their responses have the tags that the reward reads."""
PromptStyle = Literal["instruct", "nano", "plain", "cot", "reasoning", "pseudo_document"]
"""Styles for inference."""
TRAINED_STYLES: tuple[str, ...] = get_args(TrainedStyle)


@dataclass(frozen=True, kw_only=True)
class _Style:
    messages: Callable[[Turn, int], list[ChatMessage]]
    parse: Callable[[str], ParsedRewrite | None]
    respond: Callable[[str], str]
    """A response whose query is the argument: well-formed where that holds a word."""
    instruction: str | None
    """By which a chat of the style is known."""
    max_shots: int


def _respond_with_tags(question: str) -> str:
    return f"<think>The question stands as it is.</think>\n<rewrite>{question}</rewrite>"


PROMPT_STYLES: dict[str, _Style] = {
    "instruct": _Style(
        messages=instruct_messages,
        parse=parse_rewrite,
        respond=_respond_with_tags,
        instruction=INSTRUCTION,
        max_shots=1,
    ),
    "nano": _Style(
        messages=nano_messages,
        parse=parse_rewrite,
        respond=_respond_with_tags,
        instruction=None,
        max_shots=0,
    ),
    "plain": _Style(
        messages=plain.messages,
        parse=plain.parse,
        respond=plain.respond,
        instruction=plain.INSTRUCTION,
        max_shots=len(WORKED_EXAMPLES),
    ),
    "cot": _Style(
        messages=cot.messages,
        parse=cot.parse,
        respond=cot.respond,
        instruction=cot.INSTRUCTION,
        max_shots=len(WORKED_EXAMPLES),
    ),
    "reasoning": _Style(
        messages=reasoning.messages,
        parse=reasoning.parse,
        respond=reasoning.respond,
        instruction=reasoning.INSTRUCTION,
        max_shots=0,
    ),
    "pseudo_document": _Style(
        messages=pseudo_document.messages,
        parse=pseudo_document.parse,
        respond=pseudo_document.respond,
        instruction=pseudo_document.INSTRUCTION,
        max_shots=0,
    ),
}
assert tuple(PROMPT_STYLES) == get_args(PromptStyle)


def trained_style(style: PromptStyle) -> TrainedStyle:
    """The same. Raises ConfigError for one that no policy can be trained in."""
    if style not in TRAINED_STYLES:
        raise ConfigError(
            f"prompt style {style!r} cannot be trained; choose {' or '.join(TRAINED_STYLES)} with "
            "--prompt"
        )
    return style  # pyright: ignore[reportReturnType] - one of them


def rewrite_messages(
    turn: Turn, style: PromptStyle, *, shots: int = 0, template: PromptTemplate | None = None
) -> list[ChatMessage]:
    """The chat that asks for the rewrite of `turn`.

    shots: worked examples before it, our own words (self-distillation shows one, paper figure 6).
    template: takes the place of the style's own words; the style still decides how the answer is
    read. Raises ConfigError for an unknown style or a number of shots that the style does not have.
    """
    most = _style(style).max_shots
    if template is not None:
        if shots:
            raise ConfigError(f"{template.where}: write the worked examples into it; use shots=0")
        return template.messages(turn)
    if not most and shots:
        raise ConfigError(f"prompt style {style!r} takes no worked example; use shots=0")
    if not 0 <= shots <= most:
        raise ConfigError(f"prompt style {style!r} has {most} worked examples; got shots={shots}")
    return _style(style).messages(turn, shots)


def parse_response(style: PromptStyle, response: str) -> ParsedRewrite | None:
    """The query in a response to a prompt of this style; None where it is malformed. The rule of
    each style is the docstring of its `parse`. Raises ConfigError for an unknown style."""
    return _style(style).parse(response)


def style_of_chat(chat: Sequence[Mapping[str, object]]) -> PromptStyle | None:
    """The style whose instruction a chat begins with; None for none, or one without (`nano`)."""
    opening = str(chat[0].get("content", ""))
    names: tuple[PromptStyle, ...] = get_args(PromptStyle)
    for name in names:
        instruction = PROMPT_STYLES[name].instruction
        if instruction is not None and opening.startswith(instruction):
            return name
    return None


def well_formed_response(chat: Sequence[ChatMessage], question: str) -> str:
    """A response that a chat of any style takes for well formed, and whose query is `question`; it
    must hold a word and no tag."""
    style = style_of_chat(chat)
    return PROMPT_STYLES[style].respond(question) if style else _respond_with_tags(question)


def _style(name: str) -> _Style:
    if name not in PROMPT_STYLES:
        raise ConfigError(
            f"unknown prompt style {name!r}; choose one of {', '.join(PROMPT_STYLES)}"
        )
    return PROMPT_STYLES[name]
