"""Our own sentences, kept in `aspects.json`: what passages say, people ask, and an agent answers.

Placeholders: `{N}` name, `{S}` `{O}` `{P}` `{A}` the entity as subject, object, possessive and
place (`there`), `{R}` a related entity, `{v}` `{w}` the facts of this passage, `{y}` a year.
"""

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One thing a passage can tell, with several wordings of each part."""

    relation: tuple[str, ...]
    """Kinds of the related entity `{R}`; empty where none is named."""
    v: tuple[str, ...]
    """Values of the first fact."""
    w: tuple[str, ...]
    """Values of the second fact."""
    leads: tuple[str, ...]
    """First sentence of a passage."""
    details: tuple[str, ...]
    """Second sentence of a passage."""
    questions: tuple[str, ...]
    """Questions with a place for the entity."""
    ellipses: tuple[str, ...]
    """Questions that leave the entity out."""
    answers: tuple[str, ...]
    """Short answers with a place for the entity."""


def _load() -> dict[str, Aspect]:
    text = (
        resources.files("convsearch.data.mini").joinpath("aspects.json").read_text(encoding="utf-8")
    )
    return {
        name: Aspect(**{part: tuple(values) for part, values in parts.items()})
        for name, parts in json.loads(text).items()
    }


ASPECTS: dict[str, Aspect] = _load()
