"""Style `pseudo_document`: the model writes the passage that would answer, and that is searched.

Prompting alone for a pseudo-document (SPQE in arXiv 2510.17139) is a baseline without training
that often equals trained rewriters.
"""

from convsearch.prompts.conversation import headed_conversation
from convsearch.prompts.tags import ParsedRewrite, has_tags, parsed
from convsearch.types import ChatMessage, Turn

INSTRUCTION = """\
Read the conversation and write one short passage, as an encyclopaedia would have it, that answers \
the last question. Use full names instead of pronouns. Where you are not sure of a fact, write \
what such a passage is likely to say. Answer with the passage alone."""


def messages(turn: Turn, shots: int) -> list[ChatMessage]:
    """The chat of the style. It takes no examples."""
    assert not shots
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": headed_conversation(turn)},
    ]


def parse(response: str) -> ParsedRewrite | None:
    """The whole response, white space collapsed; a passage that was cut off still counts.
    Malformed: nothing in it, or one of the four tags."""
    return None if has_tags(response) else parsed(think="", rewrite=response)


def respond(question: str) -> str:
    """A well-formed response with this query."""
    return question
