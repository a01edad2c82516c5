"""Questions that no single passage answers, over the same fictional encyclopaedia.

`bridge`: a fact about something that another passage names ("What is the emblem of the birthplace
of X?"). `comparison`: which of two things came first. Every gold passage is needed, and holds the
name or the value that it is needed for, letter by letter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from convsearch.data.mini.draw import Draw
from convsearch.data.mini.kinds import KINDS
from convsearch.data.mini.world import Entity, called, make_entities, make_passages, sentence
from convsearch.files import Qrels
from convsearch.types import Passage, Question

SPLITS = (("train", 0.7), ("dev", 0.1), ("test", 0.2))
"""Split and its share of the entities that questions start from; none is in two splits."""
COMPARISONS_PER_BRIDGE = 0.25
DRAW_OFFSET = 1
"""Added to the seed of the world, so that its own draws stay as they are."""

BRIDGES = {
    "origin": ("the founder of {N}", "the person who founded {N}"),
    "leader": ("the leader of {N}", "the person in charge of {N}"),
    "landmark": ("the designer of the most famous building of {N}",),
    "birth": ("the birthplace of {N}", "the place where {N} was born"),
    "teacher": ("the teacher of {N}", "the one who taught {N}"),
    "marriage": ("the person whom {N} married",),
    "quarrel": ("the enemy of {N}", "the person with whom {N} had a long quarrel"),
    "journey": ("the ship on which {N} made a voyage",),
    "rival": ("the great rival of {N}", "the one that {N} has a feud with"),
    "discovery": ("the discoverer of {N}", "the person who first described {N}"),
    "maker": ("the maker of {N}", "the one who invented {N}"),
    "cargo": ("the place where the cargo of {N} went",),
    "material": ("the island that the material of {N} comes from",),
    "owner": ("the owner of the most valuable {N}",),
}
"""Aspect -> noun phrases for the thing that its passage names."""

TARGETS = {
    "birth": (("Where was {S} born?", "R"), ("Whose child was {S}?", "v")),
    "teacher": (("What did {S} study?", "v"), ("Who taught {O}?", "R")),
    "marriage": (("Who did {S} marry?", "R"),),
    "death": (("What was the cause of the death of {O}?", "v"),),
    "quirk": (("What strange habit did {S} have?", "v"),),
    "fame": (("What is the best known work of {O}?", "v"),),
    "journey": (("Where did {S} sail to?", "v"), ("Aboard which ship did {S} sail?", "R")),
    "origin": (("Who founded {O}?", "R"), ("In which year was {S} founded?", "y")),
    "leader": (("Who is the leader of {O}?", "R"),),
    "disaster": (("What was the worst disaster {A}?", "v"),),
    "emblem": (("What is the emblem of {O}?", "v"),),
    "landmark": (("Who designed the most famous building of {O}?", "R"),),
    "rival": (("Who is the great rival of {O}?", "R"),),
    "rule": (("What is forbidden {A}?", "v"),),
    "trade": (("What does {S} trade in?", "v"),),
    "cargo": (("What cargo did {S} carry?", "v"),),
    "material": (("What material is {S} built of?", "v"),),
    "maker": (("Who made {O}?", "R"), ("In which year was {S} made?", "y")),
    "climate": (("What marks the weather {A}?", "v"),),
}
"""Aspect -> questions about a thing, and the slot of the fact that answers them."""

COMPARISONS = {
    "origin": "Which was founded first, {X} or {Z}?",
    "birth": "Who was born first, {X} or {Z}?",
    "marriage": "Who married first, {X} or {Z}?",
    "maker": "Which was made first, {X} or {Z}?",
    "discovery": "Which was discovered first, {X} or {Z}?",
}
"""Aspect -> question which of two years came first."""


@dataclass(frozen=True, kw_only=True)
class HopData:
    """Questions and their gold passages; the passages are those of `mini`."""

    questions: list[Question]
    qrels: Qrels


@dataclass(frozen=True, kw_only=True)
class _Draft:
    text: str
    answer: str
    type: str
    golds: tuple[str, ...]


def generate_hops(seed: int) -> HopData:
    """Makes the questions over the world of this seed; a pure function of it."""
    world = Draw(seed)
    entities = make_entities(world)
    texts = {p.doc_id: p for p in make_passages(entities, world)}
    draw = Draw(seed + DRAW_OFFSET)
    starts = draw.shuffled(entities)
    questions: list[Question] = []
    qrels: Qrels = {}
    begin = 0.0
    for split, share in SPLITS:
        part = starts[round(begin * len(starts)) : round((begin + share) * len(starts))]
        begin += share
        drafts = [draft for entity in part for draft in _bridges(entity, texts, draw)]
        count = int(len(drafts) * COMPARISONS_PER_BRIDGE)
        drafts += draw.sample(_comparisons(part, texts, draw), count)
        for draft in draw.shuffled(drafts):
            qid = f"hop{len(questions) + 1:04d}"
            questions.append(
                Question(
                    qid=qid,
                    dataset="mini",
                    question=draft.text,
                    answers=(draft.answer,),
                    type=draft.type,
                    split=split,
                )
            )
            qrels[qid] = dict.fromkeys(draft.golds, 1)
    return HopData(questions=questions, qrels=qrels)


def _bridges(entity: Entity, texts: dict[str, Passage], draw: Draw) -> Iterable[_Draft]:
    """One question for each thing that a passage about the entity names."""
    for aspect, phrases in BRIDGES.items():
        fact = entity.facts.get(aspect)
        if fact is None or fact.relation is None:
            continue
        middle = fact.relation
        first = _stating(entity, aspect, middle.name, texts)
        options = [
            (question, answer, second)
            for target, asked in TARGETS.items()
            for question, slot in asked
            if target in middle.facts
            for answer in [_value(middle, target, slot)]
            for second in _stating(middle, target, answer, texts)
            if answer != entity.name
        ]
        if not first or not options:
            continue
        question, answer, second = draw.pick(options)
        phrase = draw.pick(phrases).format(N=entity.name)
        yield _Draft(
            text=sentence(question, called(phrase)),
            answer=answer,
            type="bridge",
            golds=(draw.pick(first), second),
        )


def _comparisons(entities: Sequence[Entity], texts: dict[str, Passage], draw: Draw) -> list[_Draft]:
    """Pairs of one kind in a random order, for each aspect with a year."""
    drafts = []
    for (aspect, template), kind in product(COMPARISONS.items(), KINDS):
        dated = [
            (int(_value(entity, aspect, "y")), entity, stated[0])
            for entity in draw.shuffled([e for e in entities if e.kind == kind])
            if aspect in entity.facts
            for stated in [_stating(entity, aspect, _value(entity, aspect, "y"), texts)]
            if stated
        ]
        for one, other in zip(dated[::2], dated[1::2], strict=False):
            if one[0] == other[0]:
                continue
            drafts.append(
                _Draft(
                    text=template.format(X=one[1].name, Z=other[1].name),
                    answer=min(one, other, key=lambda dated: dated[0])[1].name,
                    type="comparison",
                    golds=(one[2], other[2]),
                )
            )
    return drafts


def _value(entity: Entity, aspect: str, slot: str) -> str:
    fact = entity.facts[aspect]
    if slot == "R":
        return fact.relation.name if fact.relation else ""
    return fact.values[slot]


def _stating(entity: Entity, aspect: str, value: str, texts: dict[str, Passage]) -> list[str]:
    """Those passages about this aspect of the entity whose text holds the value."""
    doc_ids = entity.facts[aspect].doc_ids
    return [doc_id for doc_id in doc_ids if value and value in texts[doc_id].text]
