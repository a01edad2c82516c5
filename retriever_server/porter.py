"""Porter's stemmer as Lucene has it (`PorterStemFilter`).

M. F. Porter, An algorithm for suffix stripping, Program 14(3), 1980, with the two departures of
his own program: -bli becomes -ble (the paper: -abli, -able), and -logi becomes -log.
"""

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize",
    "bli": "ble", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize",
    "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful",
    "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "sion", "tion",
    "ou", "ism", "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip


def stem(word: str) -> str:
    """The stem of a word in lower case. Words of up to two letters stay as they are; a character
    beyond U+FFFF counts as two letters, since Java's strings are UTF-16."""
    if not word.isascii() and max(word) > "\uffff":
        units = word.encode("utf-16-le", "surrogatepass")
        halves = "".join(map(chr, memoryview(units).cast("H")))
        return stem(halves).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    if len(word) < 3:
        return word
    word = _plural(word)
    word = _past_and_progressive(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2)
    word = _replace(word, _STEP_3)
    word = _strip_last_suffix(word)
    return _tidy_end(word)


def _shape(word: str) -> str:
    """c for each consonant, v for each vowel; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape[-1:] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return _shape(word).count("vc")


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _ends_double(word: str) -> bool:
    return word[-1:] == word[-2:-1] and _shape(word)[-1:] == "c"


def _ends_short(word: str) -> bool:
    """Consonant, vowel, consonant, the last not w, x or y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_progressive(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return _mend(rest) if _has_vowel(rest) else word
    return word


def _mend(rest: str) -> str:
    """After -ed or -ing is gone."""
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _ends_double(rest):
        return rest if rest[-1] in "lsz" else rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _ends_short(rest) else rest


def _longest_suffix(word: str, suffixes: dict[str, str] | tuple[str, ...]) -> str | None:
    return max((s for s in suffixes if word.endswith(s)), key=len, default=None)


def _replace(word: str, suffixes: dict[str, str]) -> str:
    suffix = _longest_suffix(word, suffixes)
    if suffix is None:
        return word
    rest = word[: -len(suffix)]
    return rest + suffixes[suffix] if _measure(rest) > 0 else word


def _strip_last_suffix(word: str) -> str:
    suffix = _longest_suffix(word, _STEP_4)
    if suffix is None:
        return word
    cut = 3 if suffix in ("sion", "tion") else len(suffix)
    return word[:-cut] if _measure(word[:-cut]) > 1 else word


def _tidy_end(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word
