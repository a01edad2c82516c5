"""The fictional world: entities, the facts about them, and the passages that tell these facts."""

import re
from dataclasses import dataclass, field

from convsearch.data.mini.aspects import ASPECTS
from convsearch.data.mini.draw import Draw
from convsearch.data.mini.kinds import KINDS, PERSON
from convsearch.data.mini.names import GIVEN_NAMES, NameMaker
from convsearch.types import Passage

PASSAGES_PER_ENTITY = 6
SECOND_PASSAGE_SHARE = 0.25
"""Share of entities with one more passage, on an aspect that has one: two gold passages."""
FIRST_YEAR = 140
LAST_YEAR = 990

_ARTICLE = re.compile(r"\b([Aa])(?= [aeiou])")
_CLOSINGS = (
    "Chroniclers of {X} tell it otherwise.",
    "The same was once said of {X}.",
    "A copy of the record is kept at the archive.",
    "Compared with {X}, this is nothing unusual.",
    "Scholars still argue about the details.",
    "{X} is often mentioned in the same breath.",
)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What is true of one aspect of one entity, and where it is written."""

    relation: "Entity | None"
    values: dict[str, str]
    """Fillers of `{v}`, `{w}` and `{y}`."""
    doc_ids: list[str] = field(default_factory=list)


@dataclass(eq=False, kw_only=True)
class Entity:
    """One thing of the world. Compared by identity: relations may run in circles."""

    name: str
    kind: str
    subject: str
    object: str
    possessive: str
    facts: dict[str, Fact] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What people call it, without its name."""
        if self.kind == PERSON:
            return "woman" if self.subject == "she" else "man"
        return KINDS[self.kind].noun

    @property
    def by_pronoun(self) -> dict[str, str]:
        """Placeholders filled with pronouns."""
        return {"S": self.subject, "O": self.object, "P": self.possessive, "A": "there"}

    @property
    def by_name(self) -> dict[str, str]:
        """Placeholders filled with the name."""
        return called(self.name)


def called(phrase: str) -> dict[str, str]:
    """Placeholders filled with a noun phrase such as `the town`."""
    return {"S": phrase, "O": phrase, "P": f"{phrase}'s", "A": f"at {phrase}"}


def sentence(template: str, slots: dict[str, str]) -> str:
    """A filled template with a capital first letter."""
    text = _ARTICLE.sub(r"\1n", template.format_map(slots))
    return text[0].upper() + text[1:]


def make_entities(draw: Draw) -> list[Entity]:
    """All entities with their facts; no passages yet."""
    names = NameMaker(draw)
    entities = []
    for key, kind in KINDS.items():
        for _ in range(kind.count):
            if key == PERSON:
                pronouns = draw.pick((("she", "her", "her"), ("he", "him", "his")))
                name = f"{draw.pick(GIVEN_NAMES[pronouns[0]])} {names.word()}"
            else:
                name = f"{names.word()} {draw.pick(kind.suffixes)}".strip()
                pronouns = ("it", "it", "its")
            subject, obj, possessive = pronouns
            entities.append(
                Entity(name=name, kind=key, subject=subject, object=obj, possessive=possessive)
            )
    by_kind = {key: [e for e in entities if e.kind == key] for key in KINDS}
    for entity in entities:
        for aspect in draw.sample(KINDS[entity.kind].aspects, PASSAGES_PER_ENTITY):
            entity.facts[aspect] = _fact(aspect, entity, by_kind, draw)
    return entities


def _fact(aspect: str, entity: Entity, by_kind: dict[str, list[Entity]], draw: Draw) -> Fact:
    spec = ASPECTS[aspect]
    relation = None
    if spec.relation:
        pool = [e for e in by_kind[draw.pick(spec.relation)] if e is not entity]
        relation = draw.pick(pool)
    year = FIRST_YEAR + draw.below(LAST_YEAR - FIRST_YEAR)
    values = {"v": draw.pick(spec.v), "w": draw.pick(spec.w), "y": str(year)}
    return Fact(relation=relation, values=values)


def make_passages(entities: list[Entity], draw: Draw) -> list[Passage]:
    """Writes every fact down, in random order, and notes the ids in the facts."""
    plan = [(entity, aspect, 0) for entity in entities for aspect in entity.facts]
    for entity in entities:
        if draw.chance(SECOND_PASSAGE_SHARE):
            plan.append((entity, draw.pick(list(entity.facts)), 1))
    plan = draw.shuffled(plan)
    wordings: dict[tuple[int, str], list[str]] = {}
    passages = []
    for number, (entity, aspect, _) in enumerate(plan, 1):
        fact = entity.facts[aspect]
        leads = wordings.setdefault((id(entity), aspect), draw.shuffled(ASPECTS[aspect].leads))
        others = [e for e in draw.sample(entities, 2) if e is not entity]
        slots = {**fact.values, **entity.by_pronoun, "N": entity.name}
        slots["R"] = fact.relation.name if fact.relation else ""
        text = " ".join(
            (
                sentence(leads.pop(), slots),
                sentence(draw.pick(ASPECTS[aspect].details), slots),
                sentence(draw.pick(_CLOSINGS), {"X": others[0].name}),
            )
        )
        doc_id = f"p{number:04d}"
        fact.doc_ids.append(doc_id)
        passages.append(Passage(doc_id=doc_id, title=entity.name, text=text))
    return passages
