"""Pre-training examples for a nano policy: copy spans of the conversation into the tagged format.

No gold passage, no answer beyond what was said, no reference rewrite. A target is the question
followed by spans of the history, drawn by inverse document frequency, so the untrained policy
already searches with words of the conversation, and retrieval rank has something to choose among.
A part of the examples are conversations of random words, which only exact copying solves.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from convsearch.nano.tokenizer import WORD
from convsearch.prompts import format_response, rewrite_messages
from convsearch.prompts.tags import has_word
from convsearch.types import Message, Passage, Turn

_WORD = re.compile(WORD)
_NO_WORD = "question"
"""The rewrite where question and spans have no word between them."""


def words(text: str) -> list[str]:
    """Words of a text, as the tokenizer of the nano policies reads them."""
    return _WORD.findall(text)


@dataclass(frozen=True, kw_only=True)
class SpanSettings:
    """Which spans of the history a target holds."""

    max_spans: int = 4
    """At most this many spans follow the question; the number is uniform from 1."""
    max_span_words: int = 10
    """A longer span is cut here."""
    max_gap: int = 2
    """So many other words may stand between two content words of a span."""
    idf_floor: float = 3.0
    """A word whose idf is above this is a content word: it is in fewer than one passage in 20."""
    idf_power: float = 3.0
    """Weight of a span is the idf of its first word, less the floor, to this power."""
    title_weight: float = 20.0
    """A span that is the title of a passage, word by word, weighs so many times as much: what
    passages are about is what people come back to."""
    pool: int = 4
    """Only so many spans of a conversation, the heaviest, are ever drawn."""
    max_question_words: int = 16
    """Longer questions are copied up to here only."""
    max_rewrite_words: int = 40
    """A target is cut here, so that it fits the response length."""


@dataclass(frozen=True)
class WordStatistics:
    """Inverse document frequencies of lower-cased words over one corpus, and in what people say."""

    passages: Counter[str]
    num_passages: int
    messages: Counter[str] = field(default_factory=Counter)
    num_messages: int = 0
    titles: frozenset[tuple[str, ...]] = frozenset()
    """Titles of the passages, as words."""

    @classmethod
    def of(cls, passages: Iterable[Passage], messages: Iterable[str] = ()) -> "WordStatistics":
        """Counts each word once a passage, titles included, and once a message."""
        held = list(passages)
        in_passages, num_passages = _document_frequencies(f"{p.title} {p.text}" for p in held)
        titles = frozenset(tuple(words(p.title)) for p in held if p.title)
        return cls(in_passages, num_passages, *_document_frequencies(messages), titles)

    def idf(self, word: str) -> float:
        """ln(N / (df + 1)), at least 0, in passages or messages, whichever is lower.

        "Yes" is rare in an encyclopaedia and says nothing. A word of no passage weighs as little as
        a stop word.
        """
        df = self.passages.get(word.lower(), 0)
        if not df:
            return 0.0
        said = self.messages.get(word.lower(), 0)
        of_messages = math.log(self.num_messages / (said + 1)) if self.num_messages else math.inf
        return max(0.0, min(math.log(self.num_passages / (df + 1)), of_messages))


def _document_frequencies(texts: Iterable[str]) -> tuple[Counter[str], int]:
    frequencies: Counter[str] = Counter()
    num_texts = 0
    for text in texts:
        frequencies.update({w.lower() for w in words(text)})
        num_texts += 1
    return frequencies, num_texts


def content_spans(
    text: str, stats: WordStatistics, settings: SpanSettings
) -> list[tuple[list[str], float]]:
    """The content words of a message in runs, each with its weight, in order.

    A few other words between two content words belong to the run ("Pride and Prejudice").
    """
    said = words(text)
    idfs = [stats.idf(word) for word in said]
    spans: list[tuple[list[str], float]] = []
    start = 0
    while start < len(said):
        end = start
        for i in range(start, min(start + settings.max_span_words, len(said))):
            if idfs[i] > settings.idf_floor:
                end = i + 1
            elif i - end >= settings.max_gap or end == start:
                break
        if end > start:
            weight = idfs[start] - settings.idf_floor
            spans.append((said[start:end], max(0.01, weight) ** settings.idf_power))
        start = max(end, start + 1)
    return spans


def title_spans(
    text: str, stats: WordStatistics, settings: SpanSettings
) -> list[tuple[list[str], float]]:
    """The titles of passages that a message names, the longest at each place, with their weights.

    A title without a content word is none: it may be a common word that stands there by chance.
    """
    said = words(text)
    spans: list[tuple[list[str], float]] = []
    start = 0
    while start < len(said):
        longest = min(settings.max_span_words, len(said) - start)
        sizes = range(longest, 0, -1)
        size = next((n for n in sizes if tuple(said[start : start + n]) in stats.titles), 0)
        weight = max((stats.idf(w) for w in said[start : start + size]), default=0.0)
        if weight > settings.idf_floor:
            value = (weight - settings.idf_floor) ** settings.idf_power
            spans.append((said[start : start + size], settings.title_weight * value))
        start += max(1, size)
    return spans


def span_target(
    turn: Turn, stats: WordStatistics, settings: SpanSettings, rng: random.Random
) -> str:
    """One well-formed response for `turn`: thought = its first words, rewrite = question and spans.

    Spans come from what the prompt shows of the history, which may be less than all of it.
    Spans are drawn without repetition and stand in the order they were drawn in.
    """
    spans: list[tuple[list[str], float]] = []
    *shown, _ = rewrite_messages(turn, "nano")[-1]["content"].split("\n")
    for line in shown:
        text = line.partition(": ")[2]
        for span in title_spans(text, stats, settings) + content_spans(text, stats, settings):
            if all(span[0] != other for other, _ in spans):
                spans.append(span)
    pool = sorted(range(len(spans)), key=lambda i: -spans[i][1])[: settings.pool]
    wanted = rng.randint(1, settings.max_spans)
    # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest keys win.
    keys = {i: rng.random() ** (1 / spans[i][1]) for i in pool}
    chosen = [spans[i][0] for i in sorted(pool, key=lambda i: -keys[i])[:wanted]]
    return _response(words(turn.question), chosen, settings)


def random_word_example(
    vocabulary: Sequence[str], settings: SpanSettings, rng: random.Random, max_words: int = 48
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
    text = " ".join(rewrite[: settings.max_rewrite_words])
    return format_response(" ".join(question[:3]) or "?", text if has_word(text) else _NO_WORD)
