"""Which passages of a large collection belong to given pages, and a sample of the others.

A passage's place in the draw is a hash of its id and the seed, so the draw does not depend on the
order of the file, and a larger sample holds every smaller one of the same seed.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from convsearch.data.corpus_job import RawPassage
from convsearch.data.transfer import Progress

_PROGRESS_EVERY = 10_000


@dataclass(kw_only=True)
class PageSample:
    """What one reading of the collection found."""

    seed: int
    """Of the draw."""
    num_read: int = 0
    """Passages in the collection."""
    passages_of: dict[str, list[str]] = field(default_factory=dict)
    """Page -> ids of its passages, in the file's order; pages without any are not in it."""
    last_draw: int = -1
    """The highest draw that is in the sample of other passages; -1 for an empty sample."""

    def chosen(self, passages: Iterable[RawPassage]) -> Iterator[RawPassage]:
        """Those of a second reading that are of the pages or in the sample."""
        for raw in passages:
            if raw.page in self.passages_of or draw_of(raw.raw_id, self.seed) <= self.last_draw:
                yield raw


def sample_pages(
    passages: Iterable[RawPassage],
    pages: Collection[str],
    *,
    others: int,
    seed: int,
    on_progress: Progress | None = None,
) -> PageSample:
    """Reads the collection once. Memory: the ids of the pages' passages, a number for each of
    `others`."""
    sample = PageSample(seed=seed)
    lowest: list[int] = []
    for raw in passages:
        sample.num_read += 1
        if on_progress and sample.num_read % _PROGRESS_EVERY == 0:
            on_progress("passages looked at", sample.num_read, None)
        if raw.page in pages:
            sample.passages_of.setdefault(raw.page, []).append(raw.raw_id)
        elif len(lowest) < others:
            heapq.heappush(lowest, -draw_of(raw.raw_id, seed))
        elif others:
            heapq.heappushpop(lowest, -draw_of(raw.raw_id, seed))
    sample.last_draw = -lowest[0] if lowest else -1
    return sample


def draw_of(name: str, seed: int) -> int:
    """64 bits that depend on both alone."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
