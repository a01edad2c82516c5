"""The prompt that asks for a rewrite, and the strict parser of the answer.

Format (ConvSearch-R1, arXiv 2505.15776): `<think>reasoning</think>` newline
`<rewrite>search query</rewrite>`. The rewrite alone is what is searched.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from convsearch.errors import ConfigError
from convsearch.types import ChatMessage, Message, Turn

PromptStyle = Literal["instruct", "nano"]
"""`instruct`: a full instruction, for general chat models. `nano`: the bare conversation, for the
embedded few-million-parameter policies that know one task only and read no instructions."""
PROMPT_STYLES: tuple[str, ...] = get_args(PromptStyle)

INSTRUCTION = """\
You turn the last question of a conversation into one query for a search engine that sees nothing \
of the conversation.
Work out what the question refers to: replace pronouns and short forms by the names they stand \
for, fill in what was left out, and add words that a passage with the answer is likely to contain.
First reason between <think> and </think>. Then, on a new line, write the query between <rewrite> \
and </rewrite>. Write nothing else."""

_WORKED_TURN = Turn(
    qid="worked-example",
    conv_id="worked-example",
    turn=2,
    split="train",
    question="how long did it take to build?",
    history=(
        Message(role="user", text="which lighthouse did the Stevenson family build on Bell Rock?"),
        Message(
            role="agent",
            text="The Bell Rock Lighthouse off Arbroath, engineered by Robert Stevenson.",
        ),
    ),
)
_WORKED_RESPONSE = """\
<think>"It" is the Bell Rock Lighthouse from the previous answer. The user wants the length of its \
construction, so a passage about building the lighthouse, with years or a duration, would answer. \
Robert Stevenson and Arbroath are likely to be mentioned there.</think>
<rewrite>how many years did construction of the Bell Rock Lighthouse near Arbroath by Robert \
Stevenson take</rewrite>"""

NANO_HISTORY_CHARS = 600
NANO_QUESTION_CHARS = 240

_QUESTION_HEADING = "### Last question\n"
_RESPONSE = re.compile(
    r"<think>(?P<think>.*?)</think>\s*<rewrite>(?P<rewrite>.*?)</rewrite>", re.DOTALL
)
_TAGS = ("<think>", "</think>", "<rewrite>", "</rewrite>")


@dataclass(frozen=True, kw_only=True)
class ParsedRewrite:
    """The two parts of a well-formed response; `rewrite` is stripped and has one line."""

    think: str
    rewrite: str


def parse_rewrite(response: str) -> ParsedRewrite | None:
    """Strict parse of one response; None where it is malformed.

    Well-formed is exactly one `<think>...</think>`, then only white space, then exactly one
    `<rewrite>...</rewrite>` that holds more than white space, and nothing before or after. Line
    ends may be LF or CRLF; white space inside the rewrite is collapsed to single blanks.
    """
    if any(response.count(tag) != 1 for tag in _TAGS):
        return None
    match = _RESPONSE.fullmatch(response)
    if match is None:
        return None
    rewrite = " ".join(match["rewrite"].split())
    return ParsedRewrite(think=match["think"].strip(), rewrite=rewrite) if rewrite else None


def format_response(think: str, rewrite: str) -> str:
    """The well-formed response with these parts: the inverse of `parse_rewrite`.

    Raises ValueError for parts that no response can hold: an empty rewrite, or a tag inside a part.
    """
    response = f"<think>{think}</think>\n<rewrite>{rewrite}</rewrite>"
    if parse_rewrite(response) is None:
        raise ValueError("a rewrite must hold a word, and neither part may hold one of the tags")
    return response


def rewrite_messages(turn: Turn, style: PromptStyle, *, shots: int = 0) -> list[ChatMessage]:
    """The chat that asks for the rewrite of `turn`.

    shots: 1 puts a worked example before it (self-distillation, paper figure 6; our own words).
    `nano` has no use for an example and takes none.
    Raises ConfigError for an unknown style or a number of shots that the style does not have.
    """
    if style == "nano":
        if shots:
            raise ConfigError("prompt style 'nano' takes no worked example; use shots=0")
        return [{"role": "user", "content": _nano_content(turn)}]
    if style != "instruct":
        raise ConfigError(
            f"unknown prompt style {style!r}; choose one of {', '.join(PROMPT_STYLES)}"
        )
    if shots not in (0, 1):
        raise ConfigError(f"prompt style 'instruct' has one worked example; got shots={shots}")
    example = [
        {"role": "user", "content": _instruct_content(_WORKED_TURN)},
        {"role": "assistant", "content": _WORKED_RESPONSE},
    ]
    return [
        {"role": "system", "content": INSTRUCTION},
        *(example if shots else []),
        {"role": "user", "content": _instruct_content(turn)},
    ]


def asked_question(chat: Sequence[ChatMessage]) -> str:
    """The question that a chat of `rewrite_messages` asks about: the last line of `nano`, all after
    the last heading of `instruct`."""
    content = chat[-1]["content"]
    _, heading, question = content.rpartition(_QUESTION_HEADING)
    return question if heading else content.rpartition("\n")[2].removeprefix("Q: ")


def _instruct_content(turn: Turn) -> str:
    lines = [
        f"{'Q' if m.role == 'user' else 'A'}{i // 2 + 1}: {m.text}"
        for i, m in enumerate(turn.history)
    ]
    context = "\n".join(lines) if lines else "(none)"
    return f"### Conversation\n{context}\n{_QUESTION_HEADING}{turn.question}"


def _nano_content(turn: Turn) -> str:
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


def _cut(text: str, chars: int) -> str:
    """At most `chars` characters, whole words where there are any."""
    return text if len(text) <= chars else text[:chars].rsplit(" ", 1)[0]
