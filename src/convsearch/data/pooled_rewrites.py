"""Rewrites that a source in the pooled format brings along, such as human or published ones.

They are for evaluation, as rows of a table: some come from people who knew the answer.
"""

from pathlib import Path

from convsearch.data.dataset import find_file
from convsearch.data.pooled import SPLITS
from convsearch.data.pooled_turns import encoded_id
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import field, read_jsonl, write_rewrites
from convsearch.types import Rewrite


def write_field_rewrites(source: Path, out: Path, *, name: str, split: str) -> dict[str, int]:
    """Writes the field `name` of every turn of the split as `rewrites.jsonl`; returns the counts.

    A turn whose field is null or blank becomes a rewrite of status `failed`.
    Raises ConfigError for an unknown split, MissingFileError for a source without it, and DataError
    for a bad line or a split where no turn has the field.
    """
    path = turns_file(source, split)
    rewrites: list[Rewrite] = []
    for where, record in read_jsonl(path):
        value = record.get(name)
        text = " ".join(field(record, name, str, where).split()) if value is not None else ""
        rewrites.append(
            Rewrite(
                qid=encoded_id(field(record, "id", str, where), where),
                status="ok" if text else "failed",
                text=text or None,
                response=text,
                seed=0,
                error=None if text else f"the source has no {name} of this turn",
            )
        )
    counts = {
        "num_turns": len(rewrites),
        "num_rewrites": sum(rewrite.status == "ok" for rewrite in rewrites),
    }
    if not counts["num_rewrites"]:
        raise DataError(f'{path}: no turn has a text in field "{name}"')
    write_rewrites(out, rewrites)
    return counts


def turns_file(source: Path, split: str) -> Path:
    """The turns of a split, plain or `.gz`. Raises ConfigError for an unknown split, and
    MissingFileError for a source without it."""
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    path = find_file(source, f"{split}.jsonl")
    if path is None:
        raise MissingFileError(f"{source}: {split}.jsonl missing (also looked for .gz)")
    return path
