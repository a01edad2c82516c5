"""Conversations about the world: pronouns, ellipsis, switches to what was mentioned, and returns.

Every question can be resolved: the name of what it is about stands in the question or was said
before. Answers may also name things that are not meant, so which name to copy is a real decision.
"""

from dataclasses import dataclass, field

from convsearch.data.mini.aspects import ASPECTS
from convsearch.data.mini.draw import Draw
from convsearch.data.mini.world import Entity, called, sentence
from convsearch.types import Message, Turn

MIN_TURNS = 5
MAX_TURNS = 7
FOLLOW_UP = 0.35
"""Chance to ask on about the same passage."""
SWITCH = 0.3
"""Chance to ask about the thing that the last answer mentioned."""
RETURN = 0.35
"""Chance to come back to an earlier thing, once there is one."""
ELLIPSIS = 0.35
NOUN = 0.25
"""Chance to say `the town` instead of the pronoun."""
NAME_IN_ANSWER = 0.55
COMPARISON = 0.2
"""Chance that an answer adds a thing of the same kind that is not meant."""
COMPARISON_WORDS = 14
"""Longest answer, in words, that a comparison may make."""

_COMPARISONS = ("unlike {X}", "much like {X}", "as with {X}", "not so {X}")
_RETURNS = ("Back to {O}: {q}", "And {O} again, {q}", "Returning to {O}, {q}")


@dataclass(kw_only=True)
class _State:
    """Where a conversation stands."""

    topic: Entity
    history: list[Message] = field(default_factory=list)
    asked: set[tuple[int, str]] = field(default_factory=set)
    visited: list[Entity] = field(default_factory=list)
    mentioned: Entity | None = None
    """The related entity that the last answer named."""
    aspect: str = ""
    """What the last question asked."""
    said: set[str] = field(default_factory=set)
    """Wordings used for the last aspect: a question and an answer for each time it came up."""

    def open_aspects(self, entity: Entity) -> list[str]:
        return [a for a in entity.facts if (id(entity), a) not in self.asked]


def converse(
    conv_id: str, split: str, start: Entity, entities: list[Entity], draw: Draw
) -> list[tuple[Turn, list[str]]]:
    """One conversation that begins with `start`; each turn with the ids of its gold passages."""
    state = _State(topic=start, visited=[start])
    turns = []
    for number in range(1, MIN_TURNS + draw.below(MAX_TURNS - MIN_TURNS + 1) + 1):
        previous = state.topic
        if number == 1 or len(state.said) > 2 or not draw.chance(FOLLOW_UP):
            topic = start if number == 1 else _next_topic(state, draw)
            if topic is None:
                break
            state.topic, state.said = topic, set()
            state.aspect = draw.pick(state.open_aspects(topic))
        question = _question(state, previous, first=number == 1, draw=draw)
        turn = Turn(
            qid=f"{conv_id}_{number}",
            conv_id=conv_id,
            turn=number,
            split=split,
            question=question,
            history=tuple(state.history),
        )
        fact = state.topic.facts[state.aspect]
        turns.append((turn, list(fact.doc_ids)))
        answer = _answer(state, entities, draw)
        state.history += [Message(role="user", text=question), Message(role="agent", text=answer)]
        state.asked.add((id(state.topic), state.aspect))
        if state.topic not in state.visited:
            state.visited.append(state.topic)
        named = fact.relation is not None and fact.relation.name in answer
        state.mentioned = fact.relation if named else None
    return turns


def _next_topic(state: _State, draw: Draw) -> Entity | None:
    """What the next question is about; None when all that was named has been told."""
    earlier = [
        e
        for e in state.visited
        if e is not state.topic
        and state.open_aspects(e)
        and sum(e.noun == other.noun for other in state.visited) == 1
    ]
    if state.mentioned and state.open_aspects(state.mentioned) and draw.chance(SWITCH):
        return state.mentioned
    if earlier and draw.chance(RETURN):
        return draw.pick(earlier)
    if state.open_aspects(state.topic):
        return state.topic
    return earlier[0] if earlier else None


def _unsaid(state: _State, templates: tuple[str, ...], draw: Draw) -> str:
    """A wording that was not used for this aspect just before."""
    template = draw.pick([each for each in templates if each not in state.said])
    state.said.add(template)
    return template


def _question(state: _State, previous: Entity, *, first: bool, draw: Draw) -> str:
    spec, topic = ASPECTS[state.aspect], state.topic
    if topic is previous and not first and draw.chance(ELLIPSIS):
        return _unsaid(state, spec.ellipses, draw)
    template = _unsaid(state, spec.questions, draw)
    if first:
        return sentence(template, topic.by_name)
    if topic is previous:
        if draw.chance(NOUN):
            return sentence(template, called(f"the {topic.noun}"))
        return sentence(template, topic.by_pronoun)
    if topic is state.mentioned:
        if topic.subject != previous.subject and draw.chance(0.6):
            return f"And {_lower(sentence(template, topic.by_pronoun))}"
        return sentence(template, called(f"that {topic.noun}"))
    plain = _lower(sentence(template, topic.by_pronoun))
    return sentence(draw.pick(_RETURNS), {"O": f"the {topic.noun}", "q": plain})


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _answer(state: _State, entities: list[Entity], draw: Draw) -> str:
    topic, fact = state.topic, state.topic.facts[state.aspect]
    phrase = topic.by_name if draw.chance(NAME_IN_ANSWER) else topic.by_pronoun
    relation = fact.relation.name if fact.relation else ""
    template = _unsaid(state, ASPECTS[state.aspect].answers, draw)
    text = sentence(template, {**fact.values, **phrase, "R": relation})
    if draw.chance(COMPARISON):
        peers = [e for e in entities if e.kind == topic.kind and e is not topic]
        tail = draw.pick(_COMPARISONS).format(X=draw.pick(peers).name)
        longer = f"{text.rstrip('.')}, {tail}."
        if len(longer.split()) <= COMPARISON_WORDS:
            return longer
    return text
