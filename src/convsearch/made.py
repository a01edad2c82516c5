"""What an output was made of, and whether what lies there is that: one rule for every command.

The identity of an output is its command and the record `made_of`: each setting that shapes the
result, the hash of each input's content, and of a search engine its fingerprint. Paths, addresses,
threads and time limits are no part of it. A finished output carries it in its passport, an
unfinished one in its attempt mark beside where the passport will lie. The same identity is kept or
gone on with; another one, or none, is refused until somebody says `--fresh`; what no passport and
no mark of the command lists is never removed.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convsearch.errors import ConfigError
from convsearch.files import atomic_write
from convsearch.passport import sha256_of

logger = logging.getLogger(__name__)

Standing = Literal["absent", "unfinished", "finished"]
Record = Mapping[str, object]

PASSPORT = "run.json"
ATTEMPT = "attempt.json"
MADE_OF = "made_of"
FILES = "files"
WAY_OUT = "Start over with --fresh, or name another output"
_NO_CONTENT = ("*.md", PASSPORT, ".*")
"""What lies in a model folder and is not the model: cards, passports, the hub's own notes."""
_HASH_CHARS = 64
_SHOWN_CHARS = 12


def fingerprint(record: Record) -> str:
    """A hash of an identity: equal records have equal ones, whatever the order of their names."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def content_of(path: Path | None) -> str | None:
    """Hash of what an input holds, wherever it lies; of a model folder without cards, passports and
    hidden files. None for no input."""
    if path is None or path.is_file():
        return None if path is None else sha256_of(path)
    lines = [
        f"{child.relative_to(path)} {sha256_of(child)}"
        for child in sorted(path.rglob("*"))
        if child.is_file() and not any(child.match(pattern) for pattern in _NO_CONTENT)
        and not any(part.startswith(".") for part in child.relative_to(path).parts)
    ]  # fmt: skip
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def as_json(record: Record) -> dict[str, object]:
    """The record as a file gives it back: tuples as lists, paths as text."""
    return json.loads(json.dumps(dict(record), default=str))


def differences(found: Record, wanted: Record, *, unknown: Collection[str] = ()) -> list[str]:
    """`name (there X, now Y)` for each setting that differs, those inside of others by their path.

    unknown: names that are not compared.
    """
    there, now = _flat(as_json(found)), _flat(as_json(wanted))
    return [
        f"{name} (there {_shown(there, name)}, now {_shown(now, name)})"
        for name in sorted({*there, *now})
        if there.get(name) != now.get(name) and name.split(".")[0] not in unknown
    ]


def refuse_other(
    path: Path, found: Record, wanted: Record, *, begun: bool = False, unknown: Collection[str] = ()
) -> None:
    """Raises ConfigError that names every setting in which the output differs from the request."""
    differing = differences(found, wanted, unknown=unknown)
    if differing:
        verb = "begun" if begun else "made"
        raise ConfigError(
            f"{path}: was {verb} with other settings: {'; '.join(differing)}. {WAY_OUT}"
        )


def tell_kept(place: Path) -> None:
    """Says in the log that a finished output is kept; the command line shows it."""
    logger.info("%s: kept: made by the same settings", place)


def refuse_passport_name(path: Path | None) -> None:
    """Raises ConfigError where a file to write has the name that passports have."""
    if path is not None and (
        path.name in (PASSPORT, ATTEMPT) or path.name.endswith(f".{PASSPORT}")
    ):
        raise ConfigError(f"{path}: is the name of a passport; name another file")


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a command: a folder with `run.json`, or files with `NAME.run.json` beside them.

    Nothing is written or removed before `begin`.
    """

    passport: Path
    """Where the passport lies; the files lie beside it."""
    command: str
    """Who makes it: `stage` of the passport."""
    made_of: Record
    """The identity."""
    results: Sequence[str]
    """Names of what is there once it is finished."""
    traces: Sequence[str] = ()
    """Names of what else the command leaves, such as checkpoints."""
    sources: Sequence[Path] = ()
    """Inputs, which must not lie where the command writes."""
    told_in: str = MADE_OF
    """Field of the passport that holds the identity; `settings` where they are all of it."""

    @property
    def place(self) -> Path:
        """What messages call it: the folder, or the first file."""
        in_folder = self.passport.name == PASSPORT
        return self.passport.parent if in_folder else self.passport.with_name(self.results[0])

    @property
    def attempt(self) -> Path:
        """The mark of unfinished work."""
        stem = self.passport.name.removesuffix(PASSPORT)
        return self.passport.with_name(f"{stem}{ATTEMPT}")

    def standing(self, *, fresh: bool = False, unknown: Collection[str] = (),
        free: Collection[str] = (), kept: bool = True) -> Standing:  # fmt: skip
        """How far the output is; with `fresh` it counts as absent.

        unknown: names that cannot be compared yet. free: names that an unfinished output may be
        gone on with under another value, because what is done so far does not depend on them.
        kept: says in the log that a finished one is kept.
        Raises ConfigError, whatever `fresh` says, where the passport or the mark is another
        command's, where files have these names that nothing proves to be this command's, and where
        an input lies among them; without `fresh` where the identity is another, or not told.
        """
        self._refuse_sources()
        passport, mark = self._read(self.passport), self._read(self.attempt)
        if passport is None and mark is None:
            self._refuse_unproved()
            return "absent"
        if fresh:
            return "absent"
        if passport is not None:
            self._refuse_other(passport, unknown, begun=False)
            if all(self._beside(name).exists() for name in self.results):
                if kept:
                    tell_kept(self.place)
                return "finished"
            return "absent"
        assert mark is not None
        self._refuse_other(mark, {*unknown, *free}, begun=True)
        return "unfinished"

    def begin(self, *, fresh: bool = False) -> None:
        """Removes with `fresh` what the command made before, and marks the output as unfinished.

        Call it after `standing`, once nothing else can be refused.
        """
        if fresh:
            self._remove()
        self.passport.unlink(missing_ok=True)
        with atomic_write(self.attempt) as out:
            json.dump({"stage": self.command, **self.record}, out, indent=2)
            out.write("\n")

    @property
    def identity(self) -> dict[str, object]:
        """What the passport of an output holds that appears whole: `made_of`."""
        return {MADE_OF: as_json(self.made_of)}

    @property
    def record(self) -> dict[str, object]:
        """What passport and mark of others hold: `made_of`, and `files` that `begin` may remove."""
        return {**self.identity, FILES: sorted({*self.results, *self.traces})}

    def end(self) -> None:
        """Takes the mark away: the passport is written."""
        self.attempt.unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """The counts in the passport of a finished output."""
        counts = (self._read(self.passport) or {}).get("counts")
        return dict(counts) if isinstance(counts, dict) else {}

    def _beside(self, name: str) -> Path:
        return self.passport.parent / name

    def _read(self, path: Path) -> Record | None:
        """Passport or mark of this command; None where there is none. Raises ConfigError where it
        is another command's or cannot be read."""
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            stage = found["stage"]
        except (OSError, ValueError, LookupError, TypeError):
            raise ConfigError(
                f"{path}: is no passport that can be read; move it away, or name another output"
            ) from None
        if stage != self.command:
            raise ConfigError(
                f"{path}: tells of what another command made ({stage}), not {self.command}; it "
                "would be lost: name another output"
            )
        return found

    def _refuse_other(self, found: Record, unknown: Collection[str], *, begun: bool) -> None:
        made_of = found.get(self.told_in)
        if not isinstance(made_of, dict):
            raise ConfigError(
                f"{self.place}: exists, and {self.passport.name} does not say what it was made of, "
                "as in older versions: whether it is what you ask for cannot be told. "
                f"{WAY_OUT}"
            )
        refuse_other(self.place, made_of, self.made_of, begun=begun, unknown=unknown)

    def _refuse_unproved(self) -> None:
        for name in (*self.results, *self.traces):
            path = self._beside(name)
            if path.exists() or path.is_symlink():
                raise ConfigError(
                    f"{path}: exists, and {self.passport.name} beside it does not say how it was "
                    "made; move it away, or name another output"
                )

    def _refuse_sources(self) -> None:
        own = [self._beside(name).resolve() for name in (*self.results, *self.traces)]
        for source in self.sources:
            place = source.resolve()
            if any(place == path or path in place.parents for path in own):
                raise ConfigError(
                    f"{source}: is an input, and lies where {self.command} writes; name another "
                    "output"
                )

    def _remove(self) -> None:
        """What the passport or the mark lists, or of older ones what the command writes today."""
        for path in (self.passport, self.attempt):
            found = self._read(path)
            if found is None:
                continue
            listed = found.get(FILES)
            names = listed if isinstance(listed, list) else [*self.results, *self.traces]
            for name in filter(_is_inside, map(str, names)):
                _remove(self._beside(name))
            path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_inside(name: str) -> bool:
    """A name as `Output` writes them: below the folder of the passport."""
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _flat(record: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _shown(record: Record, name: str) -> str:
    if name not in record:
        return "not told"
    value = record[name]
    if isinstance(value, str) and len(value) == _HASH_CHARS and value.isalnum():
        return f"content {value[:_SHOWN_CHARS]}"
    return repr(value)
