"""The append-only file of episodes in progress: what a killed run leaves and the next takes up."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from convsearch.agent.records import parse_episode
from convsearch.errors import DataError
from convsearch.files import Record
from convsearch.infer.journal import Settings
from convsearch.made import refuse_other
from convsearch.types import Episode


class EpisodeJournal:
    """Finished episodes of one output, on disk after every block.

    First line: the settings. Then one line a block: its episodes, the seconds it took, and those
    of each episode. A last line that a kill cut short is dropped. Raises ConfigError where the
    journal on disk was begun with other settings, DataError where it is damaged or cannot be
    written.
    """

    def __init__(self, path: Path, settings: Settings, *, labels: Collection[str] = ()) -> None:
        """labels: names in an older journal's settings that shape nothing."""
        self.path = path
        self.episodes: dict[str, Episode] = {}
        self.seconds = 0.0
        self.seconds_of: dict[str, float] = {}
        """qid -> seconds until its episode was over; without those that an older journal lacks."""
        whole = 0
        for number, line in enumerate(self._lines(), 1):
            if not line.endswith(b"\n"):
                break
            where = f"{path}:{number}"
            record = _object(line, where)
            if number == 1:
                found = record.get("settings")
                if not isinstance(found, dict):
                    raise DataError(f"{where}: not the journal of an agent's run; remove it")
                refuse_other(path, found, settings, begun=True, unknown=labels)
            else:
                self._take(record, where)
            whole += len(line)
        try:
            self._out = path.open("ab")
            self._out.truncate(whole)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); mend the permissions or name "
                "another output"
            ) from error
        if not whole:
            self._write({"settings": settings})

    def append(
        self,
        episodes: Sequence[Episode],
        seconds: float,
        seconds_of: Mapping[str, float] | None = None,
    ) -> None:
        """Adds a block; once this returns, a kill does not lose it. seconds_of: of each episode."""
        self._write(
            {
                "seconds": round(seconds, 3),
                "seconds_of": dict(seconds_of or {}),
                "episodes": [asdict(e) for e in episodes],
            }
        )
        self.seconds_of.update(seconds_of or {})
        self.episodes.update({episode.qid: episode for episode in episodes})
        self.seconds += seconds

    def close(self) -> None:
        """Closes the file and leaves it for the next run."""
        self._out.close()

    def _lines(self) -> list[bytes]:
        if not self.path.is_file():
            return []
        return self.path.read_bytes().splitlines(keepends=True)

    def _take(self, record: Record, where: str) -> None:
        listed, seconds = record.get("episodes"), record.get("seconds")
        if not isinstance(listed, list) or not isinstance(seconds, int | float):
            raise DataError(f"{where}: the journal is damaged; start over with --fresh")
        for item in listed:
            if not isinstance(item, dict):
                raise DataError(f"{where}: the journal is damaged; start over with --fresh")
            episode = parse_episode(item, where)
            self.episodes[episode.qid] = episode
        took = record.get("seconds_of")
        for qid, value in took.items() if isinstance(took, dict) else ():
            if not isinstance(value, int | float):
                raise DataError(f"{where}: the journal is damaged; start over with --fresh")
            self.seconds_of[qid] = float(value)
        self.seconds += seconds

    def _write(self, record: Record) -> None:
        start = self._out.tell()
        try:
            self._out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            self._out.flush()
            os.fsync(self._out.fileno())
        except OSError as error:
            os.truncate(self.path, start)
            raise DataError(
                f"{self.path}: cannot be written ({error.strerror}); make room and run again: "
                "finished blocks are kept"
            ) from error


def _object(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DataError(f"{where}: the journal is damaged; start over with --fresh")
    return record
