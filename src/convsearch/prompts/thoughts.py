"""A thought that came apart from the answer, put where its prompt style expects it."""

from convsearch.prompts.rewrite import PromptStyle

_BEGIN, _END = "<think>", "</think>"
_EXPECTED: frozenset[PromptStyle] = frozenset({"instruct", "nano", "reasoning", "cot"})
"""Styles that ask for a thought; the others ask for the query or passage alone."""


def with_thought(style: PromptStyle, thought: str, answer: str) -> str:
    """The response as the parser of the style reads it.

    Endpoints with a reasoning parser take the thought, and its tags, out of the text. An answer
    with a thought of its own is left as it is, and so is one in a style that expects none. A
    thought without an answer was cut off, so it has no end.
    """
    if style not in _EXPECTED or not thought.strip() or _BEGIN in answer or _END in answer:
        return answer
    thought = thought.strip().removeprefix(_BEGIN).removesuffix(_END).strip()
    answer = answer.strip()
    return f"{_BEGIN}{thought}{_END}\n{answer}" if answer else f"{_BEGIN}{thought}"
