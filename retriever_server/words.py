"""Words as Lucene's StandardTokenizer cuts them: Unicode word boundaries (UAX #29), with emoji
and South-East Asian runs as tokens.

The grammar is followed as a finite automaton over classes of characters: the longest match from
each position is a word, anything else is skipped. `word_classes.txt` holds the class of each
character, as read off Lucene (`scripts/make_word_classes.py`), so that it does not shift with the
Unicode version of Python. Not followed: tag sequences after a presentation selector.

Classes: A letter, H Hebrew letter, 0 digit, K Katakana, N joiner such as _, m l n what may stand
within a word, either or a number, q single and d double quote, h ideograph or Hiragana,
C South-East Asian, S the same as a mark, X mark, Z zero-width joiner, V emoji and v text selector,
k keycap, E emoji, P emoji that is a letter, M skin tone, R half of a flag, # keycap base, O other.
"""

import re
from bisect import bisect_right
from pathlib import Path

CLASSES_FILE = Path(__file__).with_name("word_classes.txt")
MAX_UNITS = 255
"""Lucene cuts longer words; counted in UTF-16, where characters beyond U+FFFF count twice."""
_LAST_OF_ONE_UNIT = "\uffff"

_ASCII_WORDS = re.compile(
    r"[A-Za-z0-9_]+(?:(?:(?<=[A-Za-z])[:.'](?=[A-Za-z])|(?<=[0-9])[,;.'](?=[0-9]))[A-Za-z0-9_]+)*"
)
"""The same words where the text is ASCII and short, many times faster."""

_MARKS = "XZVvkMS"
_EMOJI_MARKS = "XZkMS"
_LETTER, _NUMBER, _KATAKANA, _JOINED = "letter", "number", "katakana", "joined"
_HEBREW, _QUOTED = "hebrew", "quoted"
_LEAD, _ZWJ_LEAD = "lead", "zwj lead"
_ACCEPTING = {
    _LETTER, _NUMBER, _KATAKANA, _JOINED, _QUOTED,
    "ideograph", "asian", "emoji", "emoji shown", "emoji toned", "flag", "keycap",
}  # fmt: skip
_STEPS: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
"""state -> (classes of the next character, states after it)."""


def _grammar() -> None:
    item = [("AP", (_LETTER,)), ("H", (_LETTER, _HEBREW)), ("0", (_NUMBER,))]
    begin = [*item, ("K", (_KATAKANA,))]
    stay = {state: (_MARKS, (state,)) for state in (_LEAD, _LETTER, _NUMBER, _KATAKANA, _JOINED)}
    joiner = ("N", (_JOINED,))
    _STEPS["start"] = [
        *begin, ("N", (_LEAD,)), ("h", ("ideograph",)), ("CS", ("asian",)), ("EP", ("emoji",)),
        ("M", ("emoji toned",)), ("Z", (_ZWJ_LEAD,)), ("R", ("half flag",)), ("#", ("key",)),
    ]  # fmt: skip
    _STEPS[_LEAD] = [*begin, ("N", (_LEAD,)), stay[_LEAD]]
    _STEPS[_JOINED] = [*begin, joiner, stay[_JOINED]]
    _STEPS[_KATAKANA] = [("K", (_KATAKANA,)), joiner, stay[_KATAKANA]]
    _STEPS[_LETTER] = [*item, joiner, stay[_LETTER], ("mlq", ("letter and",))]
    _STEPS["letter and"] = [("AHP", (_LETTER,)), (_MARKS, ("letter and",))]
    _STEPS[_NUMBER] = [*item, joiner, stay[_NUMBER], ("nlq", ("number and",))]
    _STEPS["number and"] = [("0", (_NUMBER,)), (_MARKS, ("number and",))]
    _STEPS[_HEBREW] = [(_MARKS, (_HEBREW,)), ("q", (_QUOTED,)), ("d", ("hebrew and",))]
    _STEPS["hebrew and"] = [("H", (_QUOTED,)), (_MARKS, ("hebrew and",))]
    _STEPS[_QUOTED] = [*item, joiner, (_MARKS, (_QUOTED,))]
    _STEPS["ideograph"] = [(_MARKS, ("ideograph",))]
    _STEPS["asian"] = [("C" + _MARKS, ("asian",))]
    _STEPS["emoji"] = [
        (_EMOJI_MARKS, ("emoji",)), ("V", ("emoji shown",)), ("Z", ("emoji next",)),
    ]  # fmt: skip
    _STEPS["emoji shown"] = [("Z", ("emoji next",))]
    _STEPS["emoji toned"] = [(_EMOJI_MARKS, ("emoji toned",)), ("Z", ("emoji next",))]
    _STEPS["emoji next"] = [
        ("Z", ("emoji next",)), ("EP", ("emoji",)), ("M", ("emoji toned",)),
    ]  # fmt: skip
    _STEPS[_ZWJ_LEAD] = [("Z", (_ZWJ_LEAD,)), ("EP", ("emoji",))]
    _STEPS["half flag"] = [(_MARKS, ("half flag",)), ("R", ("flag",))]
    _STEPS["flag"] = [(_MARKS, ("flag",))]
    _STEPS["key"] = [(_EMOJI_MARKS, ("key",)), ("V", ("key shown",)), ("k", ("keycap",))]
    _STEPS["key shown"] = [("k", ("keycap",))]
    _STEPS["keycap"] = [(_EMOJI_MARKS, ("keycap",))]


_grammar()
_States = frozenset[str]
_START: _States = frozenset({"start"})
_BEFORE_A_WORD = ({_LEAD}, {_ZWJ_LEAD})
"""States in which a run has begun that is no word yet and looks the same from its next place."""
_next: dict[tuple[_States, str], tuple[_States, bool]] = {}
"""Steps taken so far: where they lead, and whether a word may end there."""


def _step(states: _States, letter: str) -> tuple[_States, bool]:
    found = frozenset(
        after
        for state in states
        for letters, afters in _STEPS[state]
        if letter in letters
        for after in afters
    )
    _next[states, letter] = result = (found, not found.isdisjoint(_ACCEPTING))
    return result


class _Classes(dict[int, str]):
    """Code point -> class, looked up once; in the form `str.translate` wants."""

    def __init__(self) -> None:
        lines = [line.split() for line in CLASSES_FILE.read_text(encoding="ascii").splitlines()]
        self._firsts = [int(first, 16) for first, _, _ in lines]
        self._lasts = [int(last, 16) for _, last, _ in lines]
        self._letters = [letter for _, _, letter in lines]

    def __missing__(self, code: int) -> str:
        place = bisect_right(self._firsts, code) - 1
        found = place >= 0 and code <= self._lasts[place]
        self[code] = letter = self._letters[place] if found else "O"
        return letter


_classes = _Classes()


def split_words(text: str) -> list[str]:
    """The words of a text, as written. Linear in its length."""
    words: list[str] = []
    for chunk in text.split(" "):  # no word holds a blank, and most chunks are ASCII
        if chunk.isascii() and len(chunk) <= MAX_UNITS:
            found = _ASCII_WORDS.findall(chunk)
            words += [w for w in found if w.strip("_")] if "_" in chunk else found
        else:
            words += _automaton_words(chunk)
    return words


def _automaton_words(text: str) -> list[str]:
    letters = text.translate(_classes)
    words: list[str] = []
    start = 0
    while start < len(text):
        end, reached, states = _longest(text, letters, start)
        if end > start:
            words.append(text[start:end])
            start = end
        elif states in _BEFORE_A_WORD and reached < len(text):
            start = _skip(letters, states, start, reached)
        else:
            start += 1
    return words


def _longest(text: str, letters: str, start: int) -> tuple[int, int, _States]:
    """End of the longest word from here (start: none), how far was read, and the last states."""
    states, end, at, units = _START, start, start, 0
    while at < len(text):
        units += 1 if text[at] <= _LAST_OF_ONE_UNIT else 2
        step = (states, letters[at])
        after, accepting = _next[step] if step in _next else _step(*step)
        if not after or units > MAX_UNITS:
            break
        states = after
        at += 1
        if accepting:
            end = at
    return end, at, states


def _skip(letters: str, states: _States, start: int, reached: int) -> int:
    """Where to go on after a run that began no word within reach: near its end, not one on."""
    run = "N" + _MARKS if _LEAD in states else "Z"
    while reached < len(letters) and letters[reached] in run:
        reached += 1
    return max(start + 1, reached - MAX_UNITS + 1)
