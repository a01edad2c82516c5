"""Text of models and users made harmless for a terminal or a page: nothing in it is obeyed."""

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with every control character (escape sequences, bells, carriage returns, changes of
    direction, separators of lines) as U+FFFD. Tabs and line feeds stay."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def visible_line(text: str) -> str:
    """The same on one line: white space of any kind is one blank."""
    return visible(" ".join(text.split()))
