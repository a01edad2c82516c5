"""Query variants by rules alone: what several queries bring before any model is asked.

In this order, each left out where it says nothing that an earlier one did not:

1. the question as it is;
2. the name that comes first, with the words of content near it;
3. the name that comes last, likewise (the other side of a comparison);
4. all names: quoted titles and runs of capitalised words;
5. all words of content.

The rules know English only. Their order was chosen on the train split of `wiki_mini`.
"""

import re

_STOP_TEXT = (
    "a an the of in on at by for from to with without and or but nor is are was were be been being "
    "do does did has have had will would can could may might shall should must that this these "
    "those it its he she his her him they them their there here as than then so such if into onto "
    "over under about between during before after both either neither each other another who whom "
    "whose which what when where why how many much old one two first same also not no yes i you we "
    "us our your my me name named called known some any all more most"
)
_QUESTION_TEXT = "who whom whose which what when where why how is are was were did do does in on"
_JOINING_TEXT = "of the and de la le du von van for in on at"
_STOP = frozenset(_STOP_TEXT.split())
_QUESTION = frozenset(_QUESTION_TEXT.split())
_JOINING = frozenset(_JOINING_TEXT.split())
_WORD = re.compile(r"[^\W_]+(?:['\u2019.&-][^\W_]+)*\.?")
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d]{2,80})[\"\u201d]")
NEAR_WORDS = 4
"""Words of content on either side that go with a name."""


def rule_variants(question: str, num_variants: int) -> list[str]:
    """Up to num_variants distinct queries for the question, the question itself first."""
    asked = " ".join(question.split())
    names = _names(asked)
    in_names = {word.casefold() for name in names for word in _WORD.findall(name)}
    content = [word for word in _WORD.findall(asked) if word.casefold() not in _STOP]
    sides = [" ".join([name, *_near(asked, name, in_names)]) for name in names]
    candidates = [asked, *sides[:1], *sides[-1:], " ".join(names), " ".join(content)]
    distinct: dict[frozenset[str], str] = {}
    for candidate in candidates:
        key = frozenset(w.casefold() for w in _WORD.findall(candidate))
        if key and key not in distinct:
            distinct[key] = candidate
    return list(distinct.values())[:num_variants]


def _names(text: str) -> list[str]:
    """Quoted titles and runs of capitalised words, in order; small joining words stay inside."""
    found = [(m.start(), m[1]) for m in _QUOTED.finditer(text)]
    quoted = [m.span() for m in _QUOTED.finditer(text)]
    run: list[re.Match[str]] = []
    runs: list[list[re.Match[str]]] = []
    for match in _WORD.finditer(text):
        word = match[0]
        adjoining = not run or not text[run[-1].end() : match.start()].strip()
        inside = any(start <= match.start() < end for start, end in quoted)
        capital = (word[0].isupper() or (word[0].isdigit() and bool(run))) and not inside
        if capital and adjoining:
            run.append(match)
        elif capital:
            runs.append(run)
            run = [match]
        elif run and adjoining and word in _JOINING and not inside:
            run.append(match)
        else:
            runs.append(run)
            run = []
    for matches in [*runs, run]:
        while matches and matches[-1][0] in _JOINING:
            matches.pop()
        if matches and matches[0].start() == 0 and matches[0][0].casefold() in _QUESTION | _STOP:
            matches.pop(0)
        while matches and matches[0][0] in _JOINING:
            matches.pop(0)
        if matches:
            found.append((matches[0].start(), text[matches[0].start() : matches[-1].end()]))
    return list(dict.fromkeys(name for _, name in sorted(found)))


def _near(text: str, name: str, in_names: set[str]) -> list[str]:
    """Words of content on either side of a name, other names left out."""
    start = text.find(name)

    def content(part: str) -> list[str]:
        return [
            w
            for w in _WORD.findall(part)
            if w.casefold() not in _STOP and w.casefold() not in in_names
        ]

    before, after = content(text[:start]), content(text[start + len(name) :])
    return [*before[-NEAR_WORDS:], *after[:NEAR_WORDS]]
