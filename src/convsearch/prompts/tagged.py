"""Styles `instruct` and `nano`: the prompts that policies are trained in. Parser: `tags`."""

from convsearch.prompts.conversation import bare_conversation, headed_conversation
from convsearch.prompts.examples import WORKED_EXAMPLES
from convsearch.prompts.tags import format_response
from convsearch.types import ChatMessage, Turn

INSTRUCTION = """\
You turn the last question of a conversation into one query for a search engine that sees nothing \
of the conversation.
Work out what the question refers to: replace pronouns and short forms by the names they stand \
for, fill in what was left out, and add words that a passage with the answer is likely to contain.
First reason between <think> and </think>. Then, on a new line, write the query between <rewrite> \
and </rewrite>. Write nothing else."""


def instruct_messages(turn: Turn, shots: int) -> list[ChatMessage]:
    """A full instruction, for general chat models."""
    shown: list[ChatMessage] = []
    for example in WORKED_EXAMPLES[:shots]:
        shown += [
            {"role": "user", "content": headed_conversation(example.turn)},
            {"role": "assistant", "content": format_response(example.reason, example.rewrite)},
        ]
    return [
        {"role": "system", "content": INSTRUCTION},
        *shown,
        {"role": "user", "content": headed_conversation(turn)},
    ]


def nano_messages(turn: Turn, shots: int) -> list[ChatMessage]:
    """The bare conversation, for policies that know one task only and read no instructions."""
    assert not shots
    return [{"role": "user", "content": bare_conversation(turn)}]
