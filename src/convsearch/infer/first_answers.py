"""A look at the first answers of a run: where most are malformed, it says so at once, and why."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from convsearch.prompts import TRAINED_STYLES, PromptStyle, parse_response
from convsearch.prompts.asking import Asking
from convsearch.prompts.tags import TAGS, has_tags

log = logging.getLogger(__name__)

FIRST = 20
"""Answers that are looked at."""
_OTHER_STYLES: tuple[PromptStyle, ...] = ("instruct", "cot", "reasoning")
"""Styles whose answers are known by their form."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response."""

    text: str
    is_ok: bool
    """Whether its prompt style could read it."""
    is_cut: bool
    """Whether it ended at the limit of tokens."""


class FirstAnswers:
    """Of one run or service: warns once, in the log."""

    def __init__(
        self, style: PromptStyle, *, max_tokens: int, shots: int = 0, told: Asking | None = None
    ) -> None:
        """How the model is asked; told: what its folder says of that."""
        self._style: PromptStyle = style
        self._max_tokens = max_tokens
        self._shots = shots
        self._told = told
        self._seen: list[Answer] = []
        self._is_judged = False

    def add(self, answer: Answer) -> None:
        """The next answer; after the last of the first ones comes the warning."""
        if self._is_judged:
            return
        self._seen.append(answer)
        if len(self._seen) == FIRST:
            self.end()

    def end(self) -> None:
        """No more will come: judges what there is."""
        bad = [answer for answer in self._seen if not answer.is_ok]
        if not self._is_judged and len(bad) * 2 > len(self._seen):
            log.warning(
                "%d of the first %d answers are malformed. Likely reason: %s",
                len(bad),
                len(self._seen),
                self._reason(bad),
            )
        self._is_judged = True
        self._seen = []

    def _reason(self, bad: Sequence[Answer]) -> str:
        told, style = self._told, self._style
        reasons = []
        if told is not None and told.style != style:
            reasons.append(
                f"the model was trained with prompt style {told.style} and is asked in {style} "
                f"(leave --prompt out, or give --prompt {told.style})"
            )
        if (cut := sum(answer.is_cut for answer in bad)) * 2 >= len(bad):
            reasons.append(
                f"{cut} of them were cut at --max-tokens {self._max_tokens} (raise it, if the "
                "model does not just repeat itself)"
            )
        texts = [answer.text for answer in bad]
        return "; ".join(reasons) or reason_of_form(texts, style, self._shots)


def reason_of_form(texts: Sequence[str], style: PromptStyle, shots: int) -> str:
    """Why malformed answers of a style are so, as far as their texts tell."""

    def are_most(count: int) -> bool:
        return count * 2 >= len(texts)

    if are_most(sum(not text.strip() for text in texts)):
        return "they are empty (the model, or the endpoint, sends no text)"
    for other in _OTHER_STYLES:
        if are_most(sum(parse_response(other, text) is not None for text in texts)):
            name = " or ".join(TRAINED_STYLES) if other in TRAINED_STYLES else other
            return f"they have the form of prompt style {name} (name it with --prompt)"
    if are_most(sum(any(text.count(tag) > 1 for tag in TAGS) for text in texts)):
        return "they go on after the answer and begin another (lower --max-tokens or temperature)"
    if are_most(sum(has_tags(text) for text in texts)):
        return (
            "the tags are there and broken: the model was trained with another prompt (--prompt "
            "nano for this project's small policies), or its format has decayed in training"
        )
    if style == "reasoning":
        return (
            "none has a thought that ends in </think>: the endpoint keeps it to itself, or the "
            "model does not think (--prompt plain)"
        )
    more = " with an example (--shots 1)" if style == "instruct" and not shots else ""
    return (
        f"they are not in the form that prompt style {style} asks for: a general chat model may "
        f"need to be asked{more or ' otherwise'}, or with --prompt plain"
    )
