"""Counts against those that were published: a wrong file shows here before it shows in a score."""

import logging
from collections.abc import Mapping, Sequence

from convsearch.errors import ConfigError, DataError

_log = logging.getLogger(__name__)
_READ_AGAIN = "--verify reads the downloads again"


def parse_expected(words: Sequence[str]) -> dict[str, int]:
    """`name=count` words as a mapping. Raises ConfigError for anything else."""
    expected = {}
    for word in words:
        name, _, count = word.partition("=")
        if not name or not count.isdecimal():
            raise ConfigError(
                f"--expect takes name=count, such as num_passages=100; found {word!r}"
            )
        expected[name] = int(count)
    return expected


def check_early(
    counts: Mapping[str, int],
    published: Mapping[str, int],
    expected: Mapping[str, int],
    *,
    remedy: str = _READ_AGAIN,
) -> None:
    """Compares what is counted so far, before the long part begins. Raises DataError."""
    known = {name: count for name, count in published.items() if name in counts}
    named = {name: count for name, count in expected.items() if name in counts}
    check_counts(counts, known, named, allow_mismatch=False, remedy=remedy)


def check_counts(
    counts: Mapping[str, int],
    published: Mapping[str, int],
    expected: Mapping[str, int],
    *,
    allow_mismatch: bool,
    remedy: str = _READ_AGAIN,
) -> list[str]:
    """What differs from the published counts, as sentences; empty where all agree. Also logged.

    expected: replaces published counts by name, or adds to them. remedy: what to do about a
    damaged file. Raises DataError for a difference
    unless allow_mismatch, and ConfigError for a name that is not counted.
    """
    wanted = {**published, **expected}
    unknown = sorted(set(wanted) - set(counts))
    if unknown:
        raise ConfigError(f"--expect {unknown[0]}: not counted; counted are {', '.join(counts)}")
    wrong = [
        f"{name} is {counts[name]:,} and should be {count:,}"
        for name, count in wanted.items()
        if counts[name] != count
    ]
    if wrong and not allow_mismatch:
        raise DataError(
            f"counts differ from the published ones: {'; '.join(wrong)}. A file may be damaged or "
            f"of another version ({remedy}); name what you expect with "
            "--expect name=count, or take it as it is with --allow-count-mismatch"
        )
    for sentence in wrong:
        _log.warning("not as published: %s", sentence)
    return wrong
