"""`episodes.seconds.jsonl`: seconds of each question, apart from episodes that repeat exactly.

The seconds run from the beginning of a question's block until its episode was over. All agents of a
block speak and search together, so they are the latency of a question among as many others as the
block holds; with --batch-size 1, that of a question alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import id_field, read_jsonl, stem_of, write_jsonl

PERCENTILES = (50, 90, 99)


def seconds_path(episodes_path: Path) -> Path:
    """`episodes.seconds.jsonl` beside `episodes.jsonl`."""
    return episodes_path.with_name(f"{stem_of(episodes_path)}.seconds.jsonl")


def write_seconds(
    episodes_path: Path, qids: Sequence[str], seconds_of: Mapping[str, float]
) -> None:
    """Writes the file, in the order of the episodes; those without a time are left out."""
    rows = ({"qid": qid, "seconds": seconds_of[qid]} for qid in qids if qid in seconds_of)
    write_jsonl(seconds_path(episodes_path), rows)


def read_seconds(episodes_path: Path) -> dict[str, float]:
    """qid -> seconds; empty where there is no such file. Raises DataError for a bad line."""
    path = seconds_path(episodes_path)
    if not path.is_file():
        return {}
    found: dict[str, float] = {}
    for where, record in read_jsonl(path):
        seconds = record.get("seconds")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            raise DataError(f'{where}: field "seconds" must be a number of 0 or more')
        found[id_field(record, "qid", where)] = float(seconds)
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """`p50`, `p90`, `p99`: the smallest value that so many per cent do not exceed."""
    ordered = sorted(values)
    return {
        f"p{share}": ordered[max(0, -(-share * len(ordered) // 100) - 1)]
        for share in PERCENTILES
        if ordered
    }
