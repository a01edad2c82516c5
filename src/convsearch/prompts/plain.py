"""Style `plain`: no reasoning; the answer is the query."""

from convsearch.prompts.conversation import headed_conversation
from convsearch.prompts.examples import WORKED_EXAMPLES
from convsearch.prompts.tags import ParsedRewrite, has_tags, parsed
from convsearch.types import ChatMessage, Turn

INSTRUCTION = """\
You turn the last question of a conversation into one query for a search engine that sees nothing \
of the conversation. Name what the question refers to and fill in what was left out.
Answer with the query alone: no explanation, no quotation marks."""


def messages(turn: Turn, shots: int) -> list[ChatMessage]:
    """The chat of the style; each shot is a worked example before the question."""
    shown: list[ChatMessage] = []
    for example in WORKED_EXAMPLES[:shots]:
        shown += [
            {"role": "user", "content": headed_conversation(example.turn)},
            {"role": "assistant", "content": example.rewrite},
        ]
    return [
        {"role": "system", "content": INSTRUCTION},
        *shown,
        {"role": "user", "content": headed_conversation(turn)},
    ]


def parse(response: str) -> ParsedRewrite | None:
    """The whole response, white space collapsed. Malformed: nothing in it, or one of the four tags
    (a model that was trained to reason, under the wrong prompt)."""
    return None if has_tags(response) else parsed(think="", rewrite=response)


def respond(question: str) -> str:
    """A well-formed response with this query."""
    return question
