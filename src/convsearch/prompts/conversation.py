"""How a conversation is written into a prompt, and how its question is read back."""

from collections.abc import Sequence

from convsearch.types import ChatMessage, Turn

NANO_HISTORY_CHARS = 600
NANO_QUESTION_CHARS = 240
CONVERSATION_HEADING = "### Conversation\n"
QUESTION_HEADING = "### Last question\n"
NO_CONVERSATION = "(none)"


def conversation_lines(turn: Turn) -> str:
    """`Q1: ...`, `A1: ...`, `Q2: ...`: one line an utterance; empty before the first question."""
    return "\n".join(
        f"{'Q' if m.role == 'user' else 'A'}{i // 2 + 1}: {m.text}"
        for i, m in enumerate(turn.history)
    )


def headed_conversation(turn: Turn) -> str:
    """Conversation and question under a heading each."""
    lines = conversation_lines(turn) or NO_CONVERSATION
    return f"{CONVERSATION_HEADING}{lines}\n{QUESTION_HEADING}{turn.question}"


def bare_conversation(turn: Turn) -> str:
    """The newest messages that fit the budget, after the opening question: it names the topic."""
    lines = [
        f"{'Q' if m.role == 'user' else 'A'}: {' '.join(m.text.split())}" for m in turn.history
    ]
    newest: list[str] = []
    left = NANO_HISTORY_CHARS
    while lines and len(lines[-1]) < left:
        left -= len(lines[-1]) + 1
        newest.insert(0, lines.pop())
    opening = [f"Q: {_cut(lines[0].removeprefix('Q: '), NANO_QUESTION_CHARS)}"] if lines else []
    question = _cut(" ".join(turn.question.split()), NANO_QUESTION_CHARS)
    return "\n".join([*opening, *newest, f"Q: {question}"])


def asked_question(chat: Sequence[ChatMessage]) -> str:
    """The question that a chat asks about: all after the last heading, else the last line."""
    content = chat[-1]["content"]
    _, heading, question = content.rpartition(QUESTION_HEADING)
    return question if heading else content.rpartition("\n")[2].removeprefix("Q: ")


def _cut(text: str, chars: int) -> str:
    """At most `chars` characters, whole words where there are any."""
    return text if len(text) <= chars else text[:chars].rsplit(" ", 1)[0]
