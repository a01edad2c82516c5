"""Invented names, built from syllables. Each made-up word is used once: a name is distinctive."""

from convsearch.data.mini.draw import Draw

_SINGLE = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z")
_ONSETS = (*_SINGLE, *_SINGLE, "br", "dr", "fl", "gl", "gr", "kr", "pl", "sk", "st", "th", "tr")
_VOWELS = ("a", "a", "e", "e", "i", "i", "o", "o", "u", "ae", "ei", "ou")
_CODAS = ("", "", "", "", "l", "n", "r", "m", "s", "nd", "rn", "lt", "sk", "rm", "lv")
_ENDINGS = (
    *("a", "o", "en", "in", "or", "ul", "eth", "ane", "is", "ay", "ick", "ow", "ell", "une"),
    *("ost", "ura", "ith", "om", "yx", "eld"),
)
_MIN_LETTERS = 5
_MAX_LETTERS = 9
_KEY_LETTERS = 5

GIVEN_NAMES = {
    "she": (
        *("Abelin", "Brisa", "Corrin", "Dovia", "Elsith", "Fenna", "Gildis", "Hestra", "Ilvane"),
        *("Jorun", "Kessa", "Lirien", "Maulda", "Nessaly", "Ottiva"),
    ),
    "he": (
        *("Aldric", "Borun", "Cadmar", "Dunsto", "Edrik", "Folmar", "Garrel", "Hobric", "Ivald"),
        *("Jarek", "Kolvin", "Lothar", "Mundo", "Nevik", "Osgrim"),
    ),
}
"""First names by pronoun. People share them; only the second word tells two people apart."""


class NameMaker:
    """Makes words that differ from each other within their first five letters."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._keys: set[str] = set()

    def word(self) -> str:
        """A new capitalised word that no call has returned before."""
        pick = self._draw.pick
        while True:
            word = pick(_ONSETS) + pick(_VOWELS)
            if self._draw.chance(0.25):
                word += pick(_SINGLE) + pick(_VOWELS)
            coda = pick(_CODAS)
            word += coda + pick(_SINGLE if coda else _ONSETS) + pick(_ENDINGS)
            key = word[:_KEY_LETTERS]
            if _MIN_LETTERS <= len(word) <= _MAX_LETTERS and key not in self._keys:
                self._keys.add(key)
                return word.capitalize()
