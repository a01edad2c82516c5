"""The append-only file of a run in progress: what a killed run leaves and the next one takes up."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from convsearch.errors import ConfigError, DataError
from convsearch.files import atomic_write, parse_rewrite_record
from convsearch.types import Rewrite

Key = tuple[str, int]
"""(qid, candidate)."""
Settings = Mapping[str, object]


def journal_path(out_path: Path) -> Path:
    """Where the journal of an output lies."""
    return out_path.with_name(f"{out_path.name}.journal")


class Journal:
    """Finished records of one output, on disk after every block.

    First line: the settings. Then one record a line; of a record that occurs twice the later one
    counts. A last line that a kill cut short is dropped.
    Raises ConfigError where the journal on disk was begun with other settings.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.records: dict[Key, Rewrite] = {}
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        if lines:
            check_same_settings(path, _header(lines[0], path), settings)
        for number, line in enumerate(lines[1:], 2):
            rewrite = parse_rewrite_record(_object(line, f"{path}:{number}"), f"{path}:{number}")
            self.records[rewrite.qid, rewrite.candidate] = rewrite
        with atomic_write(path) as out:
            out.write(json.dumps({"settings": settings}) + "\n")
            out.writelines(_line(rewrite) for rewrite in self.records.values())
        self._out = path.open("a", encoding="utf-8")

    def append(self, rewrites: Sequence[Rewrite]) -> None:
        """Adds a block; once this returns, a kill does not lose it."""
        self._out.writelines(_line(rewrite) for rewrite in rewrites)
        self._out.flush()
        os.fsync(self._out.fileno())
        self.records.update({(r.qid, r.candidate): r for r in rewrites})

    def close(self) -> None:
        """Closes the file and leaves it for the next run."""
        self._out.close()


def check_same_settings(path: Path, found: Settings, wanted: Settings) -> None:
    """Raises ConfigError that names every setting in which the output differs from the request."""
    differing = [
        f"{name} (there {found.get(name)!r}, now {wanted.get(name)!r})"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise ConfigError(
            f"{path}: was made with other settings: {'; '.join(differing)}. Start over with "
            "--fresh, or name another output"
        )


def _line(rewrite: Rewrite) -> str:
    return json.dumps(asdict(rewrite), ensure_ascii=False) + "\n"


def _header(line: bytes, path: Path) -> Settings:
    settings = _object(line, f"{path}:1").get("settings")
    if not isinstance(settings, dict):
        raise DataError(f"{path}:1: not the journal of an inference run; remove it")
    return settings


def _object(line: bytes, where: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        raise DataError(f"{where}: the journal is damaged; start over with --fresh") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: the journal is damaged; start over with --fresh")
    return record
