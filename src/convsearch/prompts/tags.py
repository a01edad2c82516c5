"""The format that policies are trained in, and its strict parser.

Format (ConvSearch-R1, arXiv 2505.15776): `<think>reasoning</think>` newline
`<rewrite>search query</rewrite>`. The rewrite alone is what is searched.
"""

import re
from dataclasses import dataclass

TAGS = ("<think>", "</think>", "<rewrite>", "</rewrite>")
_RESPONSE = re.compile(
    r"<think>(?P<think>.*?)</think>\s*<rewrite>(?P<rewrite>.*?)</rewrite>", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class ParsedRewrite:
    """The two parts of a well-formed response; `rewrite` is stripped and has one line."""

    think: str
    rewrite: str


def parse_rewrite(response: str) -> ParsedRewrite | None:
    """Strict parse of one response; None where it is malformed.

    Well-formed is exactly one `<think>...</think>`, then only white space, then exactly one
    `<rewrite>...</rewrite>` with a word in it, and nothing before or after. Line
    ends may be LF or CRLF; white space inside the rewrite is collapsed to single blanks.
    """
    if any(response.count(tag) != 1 for tag in TAGS):
        return None
    match = _RESPONSE.fullmatch(response)
    return parsed(think=match["think"], rewrite=match["rewrite"]) if match else None


def format_response(think: str, rewrite: str) -> str:
    """The well-formed response with these parts: the inverse of `parse_rewrite`.

    Raises ValueError for parts that no response can hold: a rewrite without a word, or a tag inside
    a part.
    """
    response = f"<think>{think}</think>\n<rewrite>{rewrite}</rewrite>"
    if parse_rewrite(response) is None:
        raise ValueError("a rewrite must hold a word, and neither part may hold one of the tags")
    return response


def parsed(*, think: str, rewrite: str) -> ParsedRewrite | None:
    """The parts with white space in order; None where the rewrite holds no word."""
    if not has_word(rewrite):
        return None
    return ParsedRewrite(think=think.strip(), rewrite=" ".join(rewrite.split()))


def has_word(text: str) -> bool:
    """Whether a letter or a digit of any script stands in it, which no search can do without."""
    return any(map(str.isalnum, text))


def has_tags(text: str) -> bool:
    """Whether one of the four tags stands in it."""
    return any(tag in text for tag in TAGS)
