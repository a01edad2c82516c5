"""Style `cot`: reasons in the open, then a line `Query: ...`."""

import re

from convsearch.prompts.conversation import headed_conversation
from convsearch.prompts.examples import WORKED_EXAMPLES
from convsearch.prompts.tags import ParsedRewrite, has_tags, parsed
from convsearch.types import ChatMessage, Turn

INSTRUCTION = """\
You turn the last question of a conversation into one query for a search engine that sees nothing \
of the conversation.
Think step by step: what does the question refer to, what was left out, which words would a \
passage with the answer contain? Then finish with one line that begins with "Query:" and holds \
the query. Write nothing after it."""

_MARK = re.compile(
    r"^[ \t]*(?:(?P<heading>#{1,6})[ \t]+|(?:[-*+>\u2022]|\d{1,2}[.)])[ \t]+)?"
    r"(?P<open>[*_]{0,3})query(?P<close>[*_]{0,3})"
    r"(?:[ \t]*[:\uff1a](?P<late>[*_]{0,3})|(?=[ \t\r]*$))",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that begins with "Query:", as markdown may dress it up: as a heading or an item of a list,
emphasised with or without the colon, which a heading needs not have."""
_WHOLE = re.compile(r"(?P<mark>[*_]{1,3}|`)(?P<query>(?:(?!(?P=mark)).)+)(?P=mark)")
"""A query that is emphasised, or code, as a whole."""
_FENCED = re.compile(r"(?P<fence>`{3,}|~{3,})[^\n`~]*\n(?P<query>.*?)\n[ \t]*(?P=fence)", re.DOTALL)
"""A query in a block of code."""
_QUOTED = re.compile(r"\"(?P<plain>[^\"]+)\"|\u201c(?P<curly>[^\u201c\u201d]+)\u201d")
"""A query in quotation marks as a whole, which ask some engines for the very words."""


def messages(turn: Turn, shots: int) -> list[ChatMessage]:
    """The chat of the style; each shot is a worked example before the question."""
    shown: list[ChatMessage] = []
    for example in WORKED_EXAMPLES[:shots]:
        shown += [
            {"role": "user", "content": headed_conversation(example.turn)},
            {"role": "assistant", "content": f"{example.reason}\nQuery: {example.rewrite}"},
        ]
    return [
        {"role": "system", "content": INSTRUCTION},
        *shown,
        {"role": "user", "content": headed_conversation(turn)},
    ]


def parse(response: str) -> ParsedRewrite | None:
    """What follows the last `Query:` that begins a line, in whatever case, dressed up or not.

    Malformed: no such line, no word after it, more than one line after it, or one of the four tags
    in the query. Of several such lines the last counts: the ones before are part of the reasoning.
    Of a thought in `<think>` only what comes behind it is looked at; one without an end was cut.
    """
    thought, end, answer = response.rpartition("</think>")
    if "<think>" in answer:
        return None
    marks = [mark for mark in _MARK.finditer(answer) if _is_mark(mark)]
    if not marks:
        return None
    mark = marks[-1]
    query = answer[mark.end() :].strip()
    if fenced := _FENCED.fullmatch(query):
        query = fenced["query"].strip()
    if len(query.splitlines()) != 1 or has_tags(query):
        return None
    if bool(mark["open"]) != bool(mark["close"] or mark["late"]):
        query = query.removesuffix(mark["open"] or mark["close"] or mark["late"])  # runs on
    if whole := _WHOLE.fullmatch(query):
        query = whole["query"]
    if quoted := _QUOTED.fullmatch(query.strip()):
        query = quoted["plain"] or quoted["curly"]
    reasons = f"{thought.strip().removeprefix('<think>')}\n{answer[: mark.start()]}"
    return parsed(think=reasons if end else answer[: mark.start()], rewrite=query)


def _is_mark(mark: "re.Match[str]") -> bool:
    """Whether a line says "Query:", or "Query" alone as a heading: one of markdown, or in bold."""
    has_colon = mark["late"] is not None
    return has_colon or bool(mark["heading"] or (mark["open"] and mark["close"]))


def respond(question: str) -> str:
    """A well-formed response with this query."""
    return f"The question stands as it is.\nQuery: {question}"
