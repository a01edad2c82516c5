"""The kinds of things the fictional encyclopaedia describes, and which aspects each one has."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of entity. A name is an invented word, followed by one of the suffixes if any."""

    noun: str
    """What people call it: `the town`."""
    count: int
    suffixes: tuple[str, ...]
    """Second words of names; an empty one gives a one-word name."""
    aspects: tuple[str, ...]
    """Keys of `aspects.ASPECTS`; every entity has `PASSAGES_PER_ENTITY` of them."""


PERSON = "person"

KINDS: dict[str, Kind] = {
    PERSON: Kind(
        noun="person",
        count=80,
        suffixes=(),  # a person has two invented words
        aspects=("birth", "teacher", "fame", "marriage", "death", "quirk", "journey", "quarrel"),
    ),
    "town": Kind(
        noun="town",
        count=60,
        suffixes=("", "", "Ford", "Moor", "Cross", "Gate", "Hollow"),
        aspects=(
            *("origin", "leader", "food", "climate", "legend", "trade", "disaster"),
            *("landmark", "emblem", "route", "rival"),
        ),
    ),
    "island": Kind(
        noun="island",
        count=40,
        suffixes=("Skerry", "Holm", "Isle", "Cay"),
        aspects=("origin", "leader", "food", "climate", "legend", "trade", "landmark", "route"),
    ),
    "company": Kind(
        noun="company",
        count=40,
        suffixes=("Works", "Mill", "Foundry", "Traders"),
        aspects=("origin", "leader", "trade", "disaster", "emblem", "workers", "rival", "rule"),
    ),
    "creature": Kind(
        noun="creature",
        count=40,
        suffixes=("Otter", "Moth", "Crane", "Newt", "Badger", "Lizard"),
        aspects=("discovery", "diet", "habitat", "sound", "young", "threat", "legend"),
    ),
    "ship": Kind(
        noun="ship",
        count=40,
        suffixes=("Petrel", "Lantern", "Maiden", "Comet"),
        aspects=("maker", "leader", "cargo", "material", "disaster", "emblem", "legend", "food"),
    ),
    "festival": Kind(
        noun="festival",
        count=30,
        suffixes=("Fair", "Night", "Feast", "Week"),
        aspects=("origin", "season", "costume", "food", "trade", "emblem", "rule", "disaster"),
    ),
    "instrument": Kind(
        noun="instrument",
        count=25,
        suffixes=("", "Horn", "Lute", "Drum"),
        aspects=("maker", "material", "sound", "technique", "legend", "owner", "season"),
    ),
    "dish": Kind(
        noun="dish",
        count=25,
        suffixes=("Broth", "Pie", "Dumpling", "Loaf"),
        aspects=("maker", "ingredients", "taste", "season", "legend", "threat", "technique"),
    ),
    "school": Kind(
        noun="school",
        count=20,
        suffixes=("Academy", "Hall", "College"),
        aspects=("origin", "leader", "food", "rule", "landmark", "emblem", "rival", "disaster"),
    ),
}
