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

_BOLD = r"(?:\*\*|__)?"
_MARK = re.compile(
    rf"^[ \t]*(?:#+[ \t]*{_BOLD}query{_BOLD}[ \t]*$"
    rf"|(?:#+[ \t]*)?{_BOLD}query[ \t]*{_BOLD}[ \t]*:{_BOLD})",
    re.IGNORECASE | re.MULTILINE,
)
"""A heading, or the word with a colon; bold as models write it, the colon inside or outside."""


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
    """What follows the last `Query:` that begins a line, in whatever case, bold or not, also as a
    heading of its own.

    Malformed: no such line, nothing after it, more than one line after it, or one of the four tags
    in the query. Of several such lines the last counts: the ones before are part of the reasoning.
    """
    marks = list(_MARK.finditer(response))
    if not marks:
        return None
    query = response[marks[-1].end() :].strip()
    mark = marks[-1][0].lstrip("# \t")
    if mark.startswith("**") and mark.count("**") == 1:  # the whole line is bold
        query = query.removesuffix("**").rstrip()
    if len(query.splitlines()) != 1 or has_tags(query):
        return None
    return parsed(think=response[: marks[-1].start()], rewrite=query)


def respond(question: str) -> str:
    """A well-formed response with this query."""
    return f"The question stands as it is.\nQuery: {question}"
