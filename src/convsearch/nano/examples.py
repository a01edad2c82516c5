"""Pre-training examples for a nano policy: copy spans of the conversation into the tagged format.

No gold passage, no answer beyond what was said, no reference rewrite. A target is the question
followed by spans of the history, drawn by inverse document frequency, so the untrained policy
already searches with words of the conversation, and retrieval rank has something to choose among.
Half of the curriculum copies from conversations of random words, which only exact copying solves.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from convsearch.prompts import format_response
from convsearch.types import Message, Passage, Turn

_WORD = re.compile(r"[^\W_]+(?:['\u2019.-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Words of a text without punctuation at their ends; inner hyphens and apostrophes stay."""
    return _WORD.findall(text)


@dataclass(frozen=True, kw_only=True)
class SpanSettings:
    """Which spans of the history a target holds."""

    max_spans: int = 4
    """At most this many spans follow the question; the number is uniform from 1."""
    max_span_words: int = 6
    """A longer span is cut here."""
    idf_floor: float = 3.0
    """A word whose idf is above this is a content word: it is in fewer than one passage in 20."""
    idf_power: float = 1.5
    """Weight of a span is the largest idf in it, less the floor, to this power."""
    max_question_words: int = 16
    """Longer questions are copied up to here only."""
    max_rewrite_words: int = 40
    """A target is cut here, so that it fits the response length."""


@dataclass
class WordStatistics:
    """Document frequencies of lower-cased words over one corpus."""

    document_frequency: Counter[str] = field(default_factory=Counter)
    num_passages: int = 0

    @classmethod
    def of(cls, passages: Iterable[Passage]) -> "WordStatistics":
        """Counts each word once a passage, titles included."""
        stats = cls()
        for passage in passages:
            stats.num_passages += 1
            stats.document_frequency.update(
                {w.lower() for w in words(f"{passage.title} {passage.text}")}
            )
        return stats

    def idf(self, word: str) -> float:
        """ln(N / (df + 1)), at least 0; a word of no passage weighs as little as a stop word."""
        df = self.document_frequency.get(word.lower(), 0)
        return max(0.0, math.log(self.num_passages / (df + 1))) if df else 0.0


def content_spans(
    text: str, stats: WordStatistics, settings: SpanSettings
) -> list[tuple[list[str], float]]:
    """The content words of a message in runs, each with its weight, in order.

    One other word between two content words belongs to the run ("Pride and Prejudice").
    """
    said = words(text)
    idfs = [stats.idf(word) for word in said]
    content = [idf > settings.idf_floor for idf in idfs]
    inside = [
        own or (0 < i < len(said) - 1 and content[i - 1] and content[i + 1])
        for i, own in enumerate(content)
    ]
    spans: list[tuple[list[str], float]] = []
    start = 0
    while start < len(said):
        end = start
        while end < len(said) and inside[end] and end - start < settings.max_span_words:
            end += 1
        if end > start:
            weight = max(idfs[start:end]) - settings.idf_floor
            spans.append((said[start:end], max(0.01, weight) ** settings.idf_power))
        start = max(end, start + 1)
    return spans


def span_target(
    turn: Turn, stats: WordStatistics, settings: SpanSettings, rng: random.Random
) -> str:
    """One well-formed response for `turn`: thought = first span, rewrite = question and spans.

    Spans are drawn without repetition and stand in the order of the conversation.
    """
    spans = [s for m in turn.history for s in content_spans(m.text, stats, settings)]
    wanted = rng.randint(1, settings.max_spans)
    # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest keys win.
    keys = [rng.random() ** (1 / weight) for _, weight in spans]
    drawn = sorted(sorted(range(len(spans)), key=lambda i: -keys[i])[:wanted])
    chosen: list[list[str]] = []
    for i in drawn:
        if spans[i][0] not in chosen:
            chosen.append(spans[i][0])
    return _response(words(turn.question), chosen, settings)


def random_word_example(
    vocabulary: Sequence[str], settings: SpanSettings, rng: random.Random, *, max_words: int
) -> tuple[Turn, str]:
    """A conversation of random words and a response that copies spans of it.

    Nothing can be guessed here, neither by frequency nor by sense, so the loss falls only by
    copying. max_words: length cap of the whole history.
    """
    history: list[Message] = []
    left = rng.randint(4, max_words)
    while left > 0 and len(history) < 8:
        size = min(left, rng.randint(2, 12))
        text = " ".join(rng.choices(vocabulary, k=size))
        history.append(Message(role="user" if len(history) % 2 == 0 else "agent", text=text))
        left -= size
    if len(history) % 2:
        history.append(Message(role="agent", text=rng.choice(vocabulary)))
    question = rng.choices(vocabulary, k=rng.randint(1, 6))
    turn = Turn(
        qid="random",
        conv_id="random",
        turn=1,
        split="train",
        question=" ".join(question),
        history=tuple(history),
    )
    spans = []
    for _ in range(rng.randint(1, settings.max_spans)):
        message = words(rng.choice(history).text)
        length = rng.randint(1, settings.max_span_words)
        start = rng.randrange(max(1, len(message) - length + 1))
        spans.append(message[start : start + length])
    return turn, _response(words(turn.question), spans, settings)


def _response(
    question: Sequence[str], spans: Sequence[Sequence[str]], settings: SpanSettings
) -> str:
    rewrite = [*question[: settings.max_question_words], *(w for span in spans for w in span)]
    thought = spans[0] if spans else question[:3]
    return format_response(
        " ".join(thought) or "?", " ".join(rewrite[: settings.max_rewrite_words]) or "?"
    )
