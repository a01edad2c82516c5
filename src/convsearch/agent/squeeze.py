"""Squeezers: what distils the passages of a call before the model reads them.

All implement one interface and can be swapped at training and at inference. `none` and
`extractive` are here; one that asks a model is `ModelSqueezer`, given a function that generates.
A squeezer that fails is never replaced in silence: the passages go through as they are, the call
is marked `squeezed=False`, and `SqueezeMeter` warns and then stops the run.
"""

import logging
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from convsearch.agent.fusion import cut_to_tokens
from convsearch.errors import EngineError
from convsearch.types import Passage

CountTokens = Callable[[str], int]
logger = logging.getLogger(__name__)

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+")
TITLE_SHARE = 0.5
"""What a word of a query in the title adds to each sentence below it; a rare word adds 1 to 6."""
_MAX_SENTENCES = 400
"""Of one call; later ones, in the order of the passages, are not looked at."""


@dataclass(frozen=True, kw_only=True)
class SqueezeRequest:
    """What one call found."""

    question: str
    queries: tuple[str, ...]
    """The variants of the call."""
    passages: tuple[Passage, ...]
    """In fused order."""


class Squeezer(Protocol):
    """Turns passages into the text that a model reads."""

    @property
    def name(self) -> str:
        """By which results are reported: a large squeezer answers questions by itself."""
        ...

    def squeeze(self, requests: Sequence[SqueezeRequest], max_tokens: int) -> list[str | None]:
        """A text of at most max_tokens for each request, by position; None where it failed."""
        ...


class ExtractiveSqueezer:
    """Keeps the sentences that share most with the variants. No model, deterministic."""

    name = "extractive"

    def __init__(self, count_tokens: CountTokens) -> None:
        self._count = count_tokens

    def squeeze(self, requests: Sequence[SqueezeRequest], max_tokens: int) -> list[str | None]:
        """See Squeezer. The sentences keep the order of the passages."""
        return [self._one(request, max_tokens) for request in requests]

    def _one(self, request: SqueezeRequest, max_tokens: int) -> str | None:
        found = [
            (number, sentence)
            for number, passage in enumerate(request.passages)
            for sentence in _SENTENCE_END.split(passage.text[: 32 * max_tokens])
            if sentence.strip()
        ][:_MAX_SENTENCES]
        if not found:
            return None
        titles = [set(_terms(passage.title)) for passage in request.passages]
        words = [set(_terms(sentence)) for _, sentence in found]
        df = Counter(word for each in words for word in each)
        idf = {word: math.log(1 + len(found) / count) for word, count in df.items()}
        wanted = [set(_terms(query)) for query in (request.question, *request.queries)]

        worth = [
            math.fsum(idf[word] for query in wanted for word in words[i] & query)
            + TITLE_SHARE * sum(len(titles[number] & query) for query in wanted)
            for i, (number, _) in enumerate(found)
        ]
        best = sorted(range(len(found)), key=lambda i: (-worth[i], i))
        chosen: list[int] = []
        for i in best:
            if worth[i] <= 0 and chosen:
                break
            tried = self._text(request, found, sorted([*chosen, i]))
            if self._count(tried) <= max_tokens:
                chosen.append(i)
        if not chosen:
            first = self._text(request, found, [best[0]])
            return cut_to_tokens(first, max_tokens, self._count) or None
        return self._text(request, found, sorted(chosen))

    def _text(
        self, request: SqueezeRequest, found: list[tuple[int, str]], chosen: Sequence[int]
    ) -> str:
        lines: dict[int, list[str]] = {}
        for i in chosen:
            number, sentence = found[i]
            lines.setdefault(number, []).append(" ".join(sentence.split()))
        return "\n".join(
            f"{title}: {' '.join(kept)}" if title else " ".join(kept)
            for number, kept in lines.items()
            for title in [" ".join(request.passages[number].title.split())]
        )


class SqueezeMeter:
    """Counts failures of a squeezer over a run: a warning over 1 %, a stop over 10 %. Safe for
    threads."""

    ALARM_SHARE = 0.01
    STOP_SHARE = 0.10
    MIN_CALLS = 100
    """Shares of fewer calls say little; but `finish` looks at the whole of a shorter run."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self._alarmed = False
        self._lock = threading.Lock()

    @property
    def share(self) -> float:
        """Failed calls of all calls."""
        return self.failures / self.calls if self.calls else 0.0

    def add(self, calls: int, failures: int) -> None:
        """Raises EngineError once more than 10 % of at least MIN_CALLS calls have failed."""
        with self._lock:
            self.calls += calls
            self.failures += failures
            if self.calls >= self.MIN_CALLS:
                self._judge()

    def finish(self) -> None:
        """At the end of a run, however short. Raises EngineError as `add` does."""
        with self._lock:
            self._judge()

    def _judge(self) -> None:
        what = f"the squeezer failed in {self.failures} of {self.calls} calls ({self.share:.1%})"
        if self.share > self.STOP_SHARE:
            raise EngineError(
                f"{what}, over the {self.STOP_SHARE:.0%} at which a run stops: its episodes would "
                "be of another kind; mend the squeezer and run again, finished work is kept"
            )
        if self.share > self.ALARM_SHARE and not self._alarmed:
            self._alarmed = True
            logger.warning("%s; those episodes read the passages as they are", what)


def _terms(text: str) -> list[str]:
    return _WORD.findall(text.lower())
