"""Trajectories of a rule-based player over made-up worlds: what a nano agent is taught.

The player knows how its world was made: which thing a question starts from, which passage names
the next one, and what the question asks of that. It searches with wordings drawn at random, a real
engine answers, and an episode is kept only where the passages that were read hold every step and
the machine took the right answer. Worlds of other seeds share no name with the one that is tested.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from convsearch.agent import messages, observe, start, step, strategy, tool_format
from convsearch.agent.machine import AgentState, FinalAnswer
from convsearch.agent.search import Call, SearchTool
from convsearch.data.mini.aspects import ASPECTS
from convsearch.data.mini.draw import Draw
from convsearch.data.mini.hops import BRIDGES, TARGETS, generate_hops
from convsearch.data.mini.world import Entity, called, make_entities, make_passages, sentence
from convsearch.eval.answers import exact_match
from convsearch.nano.examples import words
from convsearch.nano.tokenizer import WORD
from convsearch.types import ChatMessage, Passage, Question

CLUE_WORDS = 3
"""So many words before a name or value are thought of together with it; a colon is one."""
KEYWORDS = 4
"""Words of an aspect that a query may hold beside a name."""
OTHER_ORDER = 0.25
"""Share of calls whose queries are not in the usual order."""
COMPARISONS = 0.25
"""Share of comparisons among the questions that are played, twice that of the data: which of two
years is the earlier takes more examples than which name to copy."""
_READ = re.compile(f"{WORD}|:")
_FILLING = frozenset(
    (
        *("the", "of", "a", "an", "in", "by", "to", "and", "its", "for", "with", "is", "was", "at"),
        *("it", "from", "on", "who", "her", "his", "she", "he", "has", "been", "that", "since"),
        *("which", "had", "as", "this", "there"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that a question needs: a fact about something that has a name."""

    name: str
    aspect: str
    phrase: str
    """How the question words the need, with the name in it."""
    value: str
    """What the passage has to tell."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A question and how it is solved."""

    question: Question
    steps: tuple[Step, Step]


@dataclass(frozen=True, kw_only=True)
class World:
    """One encyclopaedia with questions of one split."""

    passages: Sequence[Passage]
    lessons: Sequence[Lesson]


def make_world(seed: int, split: str | None = None) -> World:
    """The world of `seed` and its questions: those of one split, or all."""
    draw = Draw(seed)
    entities = make_entities(draw)
    passages = make_passages(entities, draw)
    data = generate_hops(seed)
    told = {
        doc_id: (entity, aspect)
        for entity in entities
        for aspect, fact in entity.facts.items()
        for doc_id in fact.doc_ids
    }
    lessons = []
    for question in data.questions:
        if split in (None, question.split):
            facts = [told[doc_id] for doc_id in data.qrels[question.qid]]
            lessons.append(_lesson(question, facts))
    return World(passages=passages, lessons=lessons)


def _lesson(question: Question, facts: Sequence[tuple[Entity, str]]) -> Lesson:
    (first, bridge), (second, target) = facts
    if question.type == "comparison":
        steps = tuple(
            Step(
                name=entity.name,
                aspect=aspect,
                phrase=f"{question.question.partition(',')[0]} {entity.name}",
                value=entity.facts[aspect].values["y"],
            )
            for entity, aspect in facts
        )
        return Lesson(question=question, steps=(steps[0], steps[1]))
    phrases = [p.format(N=first.name) for p in BRIDGES[bridge]]
    asked = [sentence(text, called(second.name)) for text, _ in TARGETS[target]]
    said = [sentence(text, called(p)) for text, _ in TARGETS[target] for p in phrases]
    number = said.index(question.question)
    return Lesson(
        question=question,
        steps=(
            Step(
                name=first.name,
                aspect=bridge,
                phrase=phrases[number % len(phrases)],
                value=second.name,
            ),
            Step(
                name=second.name,
                aspect=target,
                phrase=asked[number // len(phrases)],
                value=question.answers[0],
            ),
        ),
    )


@lru_cache
def keywords(aspect: str) -> tuple[str, ...]:
    """Words that passages about this aspect use most, the most frequent first."""
    counts: Counter[str] = Counter()
    for lead in ASPECTS[aspect].leads:
        told = re.sub(r"\{\w\}", " ", lead).lower()
        counts.update(set(words(told)))
    return tuple(
        w
        for w, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if w not in _FILLING
    )[:KEYWORDS]


def wordings(need: Step, count: int, rng: random.Random) -> list[str]:
    """`count` different queries for one need: its phrase in the question, then the name with a word
    of the aspect each, the most frequent words first; now and then in another order, so that
    reinforcement has something to choose among."""
    pool = [need.phrase, *(f"{need.name} {word}" for word in keywords(need.aspect))]
    if rng.random() < OTHER_ORDER:
        pool = rng.sample(pool, len(pool))
    return [_plain(query) for query in pool[:count]]


class Player:
    """Plays questions of the world that `tool` searches. variants: queries that it writes in each
    call."""

    def __init__(self, tool: SearchTool, *, variants: int, rng: random.Random) -> None:
        self._tool, self._variants, self._rng = tool, variants, rng

    def play(self, lesson: Lesson, *, searched: int) -> list[ChatMessage] | None:
        """The chat of a right episode; None where the search or the reading went wrong.

        searched: how many queries of a call the machine lets through.
        """
        rules = strategy("expand_search", num_variants=searched, max_turns=3)
        question = lesson.question
        state = start(question.qid, question.question, rules, tool_format("nano"))
        compares = question.type == "comparison"
        first, second = lesson.steps
        queries = wordings(first, self._variants, self._rng)
        if compares and searched > 1:
            other = wordings(second, 1, self._rng)
            queries = [queries[0], *other, *queries[1:]][: self._variants]
        state = self._search(state, first.name, queries)
        seen = _read(state)
        clue = _clue(seen, first)
        if clue is None:
            return None
        if not compares or _clue(seen, second) is None:
            queries = wordings(second, self._variants, self._rng)
            state = self._search(state, clue, queries)
            seen = _read(state)
        found = _clue(seen, second)
        if found is None:
            return None
        answer = question.answers[0]
        thought = found
        if compares:
            earlier = min(first.value, second.value, key=int)
            told = (f"{need.name} {need.value} {need.name}" for need in (first, second))
            # copying goes on: in the question "or" and the other name follow the first one, and
            # what followed the year before is its name
            thought = f"{' or '.join(told)} {earlier} {answer}"
        state, outcome = step(state, _turn(thought, f"<answer>{_plain(answer)}</answer>"))
        if not isinstance(outcome, FinalAnswer) or not exact_match(outcome.answer, [answer]):
            return None
        return messages(state)

    def _search(self, state: AgentState, thought: str, queries: list[str]) -> AgentState:
        state, _ = step(state, _turn(thought, state.form.render_call(queries)))
        call = Call(question=state.question, queries=state.pending)
        return observe(state, self._tool.answer([call])[0])


def _turn(thought: str, action: str) -> str:
    return f"<think>{_read_words(thought)}</think>\n{action}"


def _plain(text: str) -> str:
    return " ".join(words(text)).lower()


def _read(state: AgentState) -> list[str]:
    """Lines of all results so far, as words."""
    told = [span.text for span in state.spans if span.kind == "tool"]
    return [_read_words(line) for text in told for line in text.splitlines()]


def _read_words(text: str) -> str:
    """Words and the colon that ends a title: all that the policy's tokenizer keeps, so that what
    goes on after a title can be copied."""
    return " ".join(_READ.findall(text)).lower()


def _clue(lines: Sequence[str], need: Step) -> str | None:
    """The value with the words before it, where a line about the name tells it."""
    name, value = _plain(need.name), _plain(need.value)
    for line in lines:
        if name in line:
            told = f" {line} "
            place = told.find(f" {value} ", len(name))
            if place >= 0:
                return " ".join([*told[:place].split()[-CLUE_WORDS:], value])
    return None


def episodes_forever(
    worlds: Sequence[World],
    tools: Sequence[SearchTool],
    *,
    variants: int,
    rng: random.Random,
) -> Iterator[list[ChatMessage]]:
    """Right episodes in these worlds, each with its tool; all variants are searched in half of them
    and the first one alone in the other half."""
    players = [Player(tool, variants=variants, rng=rng) for tool in tools]
    by_type = [
        {
            compares: [x for x in world.lessons if (x.question.type == "comparison") == compares]
            for compares in (False, True)
        }
        for world in worlds
    ]
    while True:
        number = rng.randrange(len(worlds))
        lesson = rng.choice(by_type[number][rng.random() < COMPARISONS])
        chat = players[number].play(lesson, searched=rng.choice((1, variants)))
        if chat is not None:
            yield chat
