"""Tags in text that a model wrote: plain scanning, linear in the length of the text."""

from collections.abc import Sequence
from typing import NamedTuple

_OPEN, _CLOSE = "<think>", "</think>"


class Block(NamedTuple):
    """`<tag>content</tag>` in a text; end is the position after it."""

    tag: str
    content: str
    start: int
    end: int


def find_blocks(text: str, tags: Sequence[str]) -> tuple[list[Block], bool]:
    """Closed blocks from left to right, and whether an opening tag without its end was left over.

    A block begins at the last opening tag before its end, so `<a><a>x</a>` holds `x`. Blocks do
    not overlap, whatever stands inside them.
    """
    found: list[Block] = []
    position, unclosed = 0, False
    open_tags = {tag: text.find(f"<{tag}>") for tag in tags}
    while True:
        for tag, start in open_tags.items():
            if 0 <= start < position:
                open_tags[tag] = text.find(f"<{tag}>", position)
        starts = [(start, tag) for tag, start in open_tags.items() if start >= 0]
        if not starts:
            return found, unclosed
        start, tag = min(starts)
        inside = start + len(tag) + 2
        close = text.find(f"</{tag}>", inside)
        if close < 0:
            unclosed = True
            open_tags[tag] = -1
            continue
        inner = text.rfind(f"<{tag}>", start, close)
        position = close + len(tag) + 3
        content = text[inner + len(tag) + 2 : close]
        found.append(Block(tag=tag, content=content, start=inner, end=position))


def without_thoughts(text: str) -> str:
    """`text` without `<think>...</think>`.

    Some chat templates open the thought themselves: then all before the first end is a thought. An
    opening tag without an end hides nothing.
    """
    first_close = text.find(_CLOSE)
    first_open = text.find(_OPEN)
    if first_close >= 0 and not 0 <= first_open < first_close:
        text = text[first_close + len(_CLOSE) :]
    kept: list[str] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        close = text.find(_CLOSE, start)
        if close < 0:
            break
        kept.append(text[position:start])
        position = close + len(_CLOSE)
    return "".join([*kept, text[position:]])


def is_well_formed(text: str, action_tags: Sequence[str]) -> bool:
    """Whether a turn is exactly one thought and then exactly one action, blanks aside."""
    stripped = text.strip()
    if not stripped.startswith(_OPEN) or stripped.count(_OPEN) != 1 or stripped.count(_CLOSE) != 1:
        return False
    action = stripped[stripped.index(_CLOSE) + len(_CLOSE) :].lstrip()
    marks = [f"<{slash}{tag}>" for tag in action_tags for slash in ("", "/")]
    if sum(stripped.count(mark) for mark in marks) != 2:
        return False
    return any(
        action.startswith(f"<{tag}>") and action.endswith(f"</{tag}>") for tag in action_tags
    )
