"""Style `reasoning`: models that think by themselves and end it with `</think>`, such as the
distilled DeepSeek-R1 ones. Their makers advise against system prompts and examples."""

from convsearch.prompts.conversation import headed_conversation
from convsearch.prompts.tags import ParsedRewrite, has_tags, parsed
from convsearch.types import ChatMessage, Turn

END_OF_THOUGHT = "</think>"
INSTRUCTION = """\
Turn the last question of this conversation into one query for a search engine that sees nothing \
of the conversation. Name what the question refers to and fill in what was left out. When you have \
thought about it, answer with the query alone: no explanation, no quotation marks."""


def messages(turn: Turn, shots: int) -> list[ChatMessage]:
    """The chat of the style: one message of the user. It takes no examples."""
    assert not shots
    return [{"role": "user", "content": f"{INSTRUCTION}\n\n{headed_conversation(turn)}"}]


def parse(response: str) -> ParsedRewrite | None:
    """What follows the last `</think>`, white space collapsed; `<think>` may be missing, since many
    chat templates write it into the prompt.

    Malformed: no `</think>` (the model was cut off while it thought), nothing after it, or one of
    the other tags after it.
    """
    before, end, after = response.rpartition(END_OF_THOUGHT)
    if not end or has_tags(after):
        return None
    return parsed(think=before.strip().removeprefix("<think>"), rewrite=after)


def respond(question: str) -> str:
    """A well-formed response with this query."""
    return f"<think>The question stands as it is.{END_OF_THOUGHT}\n{question}"
