"""Writes retriever_server/word_classes.txt: what every character is to Lucene's tokenizer.

Lucene itself is asked, through Java: each character is put into some fifty contexts, and two
characters are of one class where all tokens end at the same places. Needs the extra `lucene`;
a minute. A test compares the table with Lucene.
"""

from pathlib import Path

from retriever_server.lucene.frames import pack, unpack
from retriever_server.lucene.jvm import jvm

OUT = Path(__file__).parent.parent / "retriever_server" / "word_classes.txt"
FACE, MODIFIER, FLAG, ZWJ = "\U0001f600", "\U0001f3fb", "\U0001f1e6", "\u200d"
KEYCAP, PRESENTATION, TAG_END = "\u20e3", "\ufe0f", "\U000e007f"
REPRESENTATIVES = {
    "a": "A", "\u05d0": "H", "5": "0", "\u30ab": "K", "_": "N", ":": "m", ".": "l", ",": "n",
    "'": "q", '"': "d", "\u0301": "X", ZWJ: "Z", PRESENTATION: "V", "\ufe0e": "v", KEYCAP: "k",
    MODIFIER: "M", FACE: "E", "\u2139": "P", FLAG: "R", "\u6771": "h", "\u0e01": "C",
    "\u0e31": "S", "#": "#", " ": "O",
}  # fmt: skip
"""One character of each class, and the letter that stands for the class in the table."""
HOLE = "?"
CONTEXTS = (
    "?|??|b?|?b|b?b|5?5|b?5|5?b|\u30ab?|?\u30ab|\u30ab?\u30ab|_?|?_|_?_|\u05d0?\u05d0|\u05d0?|"
    "?\u05d0|b?.b|b.?b|b:?|b?:b|5?.5|5,?|\u0e01?|?\u0e01|\u0e01?\u0e01|\u6771?|\u3042?|"
    f"{FACE}?|?{FACE}|{FACE}?{FACE}|{FACE}{ZWJ}?|?{MODIFIER}|?{ZWJ}{FACE}|?{ZWJ}{MODIFIER}|"
    f"?{PRESENTATION}|5?{KEYCAP}|?{KEYCAP}|#?|#?{KEYCAP}|?{PRESENTATION}{KEYCAP}|{FLAG}?|?{FLAG}|"
    f"{FACE}?{TAG_END}|{FACE}{PRESENTATION}?|{FACE}\ufe0e?|\u05d0?b|\u05d0?5|b??b|\u0e01_?\u0e01|"
    '?"\u05d0|?\'|\u05d0"?|?\'5|b"?'
).split("|")
SURROGATES = range(0xD800, 0xE000)
ASKED = (range(0x32400), range(0xE0000, 0xE0200))
"""Beyond these no character is assigned, or it is for private use."""
BLOCK = 1000


def signatures(characters: list[str]) -> dict[str, tuple[str, ...]]:
    """For each character the lengths of the tokens in each context."""
    machine = jvm()

    def load(class_named):  # type: ignore[no-untyped-def]
        no_stop_words = class_named("org.apache.lucene.analysis.CharArraySet")(1, False)
        standard = class_named("org.apache.lucene.analysis.standard.StandardAnalyzer")
        return class_named("convsearch.lucene.Terms"), standard(no_stop_words)

    terms, analyzer = machine.call(load)
    found = {}
    for start in range(0, len(characters), BLOCK):
        block = characters[start : start + BLOCK]
        texts = pack(context.replace(HOLE, c) for c in block for context in CONTEXTS)
        answer = machine.call(lambda _, texts=texts: terms.analyze(analyzer, texts).tostring())
        lengths = [",".join(str(len(t)) for t in line.split("\n")) for line in unpack(answer)]
        for i, character in enumerate(block):
            found[character] = tuple(lengths[i * len(CONTEXTS) : (i + 1) * len(CONTEXTS)])
    return found


def word_classes() -> list[tuple[int, int, str]]:
    """(first, last, class) of all ranges that hold anything but separators."""
    asked = [chr(c) for some in ASKED for c in some if c not in SURROGATES]
    found = signatures(asked)
    names = {found[character]: letter for character, letter in REPRESENTATIVES.items()}
    assert len(names) == len(REPRESENTATIVES), "the contexts do not tell all classes apart"
    ranges: list[tuple[int, int, str]] = []
    for character in asked:
        letter, code = names[found[character]], ord(character)
        if letter == "O":
            continue
        if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == letter:
            ranges[-1] = (ranges[-1][0], code, letter)
        else:
            ranges.append((code, code, letter))
    return ranges


def main() -> None:
    lines = [f"{first:x} {last:x} {letter}\n" for first, last, letter in word_classes()]
    OUT.write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
