"""Passages and queries in any number, made from a seed: for benchmarks and for tests of parity."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convsearch.types import Passage

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "or")]
_ENDINGS = ("", "", "", "s", "ing", "ed", "ly", "ation", "y", "ness", "'s")
_ZIPF = 1.05
_BURSTY = 0.12
"""Share of words that repeat an earlier word of their passage."""
_MAX_WORDS = 400


@dataclass(frozen=True, kw_only=True)
class Call:
    """What `Retriever.ranks` takes."""

    queries: list[str]
    golds: list[list[str]]


class SyntheticCorpus:
    """Pseudo words under Zipf's law with bursts, in passages of lognormal length.

    Ids are shuffled numbers without leading zeros, so their order as strings is neither that of
    the numbers nor that of the passages. One passage in 200 is empty, one in 50 repeats the one
    before it under another id, so that there are ties.
    """

    def __init__(self, num_passages: int, *, vocabulary: int = 100_000, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.words = _pseudo_words(vocabulary, self._rng)
        self._odds = np.cumsum(1 / np.arange(1, vocabulary + 1) ** _ZIPF)
        self._odds /= self._odds[-1]
        self.ids = [f"p{i}" for i in self._rng.permutation(num_passages)]
        lengths = np.clip(self._rng.lognormal(4.25, 0.4, num_passages), 1, 1000).astype(int)
        lengths[::200] = 0
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._word_ids = self._draw(int(self._starts[-1]))
        self._burst()

    def _draw(self, count: int) -> np.ndarray:
        return np.searchsorted(self._odds, self._rng.random(count)).astype(np.int32)

    def _burst(self) -> None:
        """Copies come from up to 30 words before, within the same passage."""
        total = len(self._word_ids)
        places = np.flatnonzero(self._rng.random(total) < _BURSTY)
        sources = places - self._rng.integers(1, 30, len(places))
        passages = np.searchsorted(self._starts, places, side="right") - 1
        inside = sources >= self._starts[passages]
        self._word_ids[places[inside]] = self._word_ids[sources[inside]]

    def text(self, position: int) -> str:
        """The text of one passage."""
        if position % 50 == 1:
            position -= 1
        chosen = self._word_ids[self._starts[position] : self._starts[position + 1]]
        return " ".join(map(self.words.__getitem__, chosen.tolist()))

    def passages(self) -> Iterator[Passage]:
        """All passages; every third has its first word as the title."""
        for position, doc_id in enumerate(self.ids):
            title, _, rest = self.text(position).partition(" ")
            if position % 3:
                title, rest = "", f"{title} {rest}".strip()
            yield Passage(doc_id=doc_id, title=title, text=rest)

    def call(self, num_queries: int) -> Call:
        """Queries of 1 to 400 words, half of them from the gold passage, the rest from the whole
        vocabulary; one query in five has three gold passages."""
        queries, golds = [], []
        for number in range(num_queries):
            gold = self._rng.integers(0, len(self.ids), 3 if number % 5 == 0 else 1)
            length = int(np.exp(self._rng.uniform(0, np.log(_MAX_WORDS))).round())
            own = self.text(int(gold[0])).split()
            picked = self._rng.choice(own, length // 2).tolist() if own else []
            picked += map(self.words.__getitem__, self._draw(length - len(picked)).tolist())
            queries.append(" ".join(picked))
            golds.append([self.ids[g] for g in gold])
        return Call(queries=queries, golds=golds)


def _pseudo_words(count: int, rng: np.random.Generator) -> list[str]:
    """Different words of two syllables or more, many with endings that a stemmer takes off."""
    base = len(_SYLLABLES)
    words = []
    for number in range(count):
        text, rest = "", number + base
        while rest:
            rest, digit = divmod(rest, base)
            text += _SYLLABLES[digit]
        words.append(text + _ENDINGS[rng.integers(len(_ENDINGS))])
    order = rng.permutation(count)
    return [words[i] for i in order]
