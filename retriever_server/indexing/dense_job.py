"""The working folder of a dense index in making: survives a kill, goes on at the last whole shard.

`<out>.partial` holds `job.json` (what is being built), the store, and for each finished shard its
`.npy` and a `.json` with rows and hash, written after it. With the same settings a later run takes
up what is there, with others it is refused.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from convsearch.files import atomic_write
from retriever_server.dense.vectors import Shard, shard_name
from retriever_server.making import JOB, LOCK, held, partial_folder
from retriever_server.manifest import put_in_place, refuse_foreign_folder

VECTORS = "vectors"
_STORED = "stored.json"


class Job:
    """A folder in making. Every process of a distributed run has one over the same folder."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.folder = partial_folder(out_dir)
        self.vectors_dir = self.folder / VECTORS

    @contextmanager
    def held(self, settings: Mapping[str, object]) -> Iterator[None]:
        """Makes the folder or takes up an older one, for this process alone.

        After an error nothing is left where no shard was finished. Raises ConfigError where another
        process works here, where the folder is of other settings, or where `out_dir` is no index.
        """
        refuse_foreign_folder(self.out_dir)
        with held(self.folder, settings):
            self.vectors_dir.mkdir(exist_ok=True)
            try:
                yield
            except BaseException:
                if not any(self.vectors_dir.glob("*.json")):
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise

    @property
    def is_stored(self) -> bool:
        """Whether the store of passages is complete."""
        return (self.folder / _STORED).is_file()

    def mark_stored(self) -> None:
        """Says that the store of passages is complete."""
        with atomic_write(self.folder / _STORED) as out:
            out.write("{}\n")

    def mark_shard(self, number: int, shard: Shard) -> None:
        """Says that a shard is complete."""
        with atomic_write((self.vectors_dir / shard_name(number)).with_suffix(".json")) as out:
            json.dump(asdict(shard), out)

    def shard(self, number: int) -> Shard | None:
        """A finished shard, or None where it has to be made."""
        path = (self.vectors_dir / shard_name(number)).with_suffix(".json")
        if not path.is_file() or not (self.vectors_dir / shard_name(number)).is_file():
            return None
        return Shard(**json.loads(path.read_text(encoding="utf-8")))

    def publish(self, num_shards: int) -> None:
        """Removes what belongs to the making alone and gives the folder its name."""
        for number in range(num_shards):
            (self.vectors_dir / shard_name(number)).with_suffix(".json").unlink()
        for stray in self.vectors_dir.glob(".*.tmp"):  # of a process that was killed
            stray.unlink()
        for name in (JOB, _STORED, LOCK):
            (self.folder / name).unlink()
        put_in_place(self.folder, self.out_dir)
