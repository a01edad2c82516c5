"""What building a BM25 index will take, judged by the first passages of the corpus."""

import gzip
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import parse_json, read_lines
from convsearch.passages import parse_passage
from retriever_server.cores import num_cores

_SAMPLE = 2_000
_TABLE_BYTES = 41
"""Offsets, order, hashes and length of a passage."""
_POSTING_BYTES, _PART_POSTING_BYTES = 5, 8
"""Of the index with its entries, and of the parts that it is merged from."""
_WORKER_MB, _MERGE_MB = 250, 600
_MERGE_SHARE = 0.3
"""Time of the merge as a share of the analysis on one processor."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Rough figures: good for "will it fit, and shall I wait"."""

    num_passages: int
    index_mb: float
    """On disk, for good."""
    scratch_mb: float
    """On disk beside it, while the index is built."""
    memory_mb: float
    minutes: float

    def __str__(self) -> str:
        return (
            f"about {self.num_passages:,} passages: {self.index_mb:,.0f} MB on disk and "
            f"{self.scratch_mb:,.0f} MB more while building, {self.memory_mb:,.0f} MB of memory, "
            f"{self.minutes:,.1f} minutes"
        )


def forecast_bm25(corpus_path: Path, *, workers: int | None = None) -> Forecast:
    """Reads and analyses the first 2,000 passages. Raises DataError or MissingFileError for a
    corpus that is empty, bad in these lines, or not there."""
    from retriever_server.analyzer import Analyzer

    workers = workers or num_cores()
    analyze = Analyzer()
    start = time.perf_counter()
    lines = list(itertools.islice(read_lines(corpus_path), _SAMPLE))
    if not lines:
        raise DataError(f"{corpus_path}: the corpus is empty; it must hold at least one passage")
    text_bytes = postings = 0
    for where, line in lines:
        passage = parse_passage(parse_json(line, where), where)
        text_bytes += len(line.encode())
        postings += len(set(analyze(f"{passage.title} {passage.text}")))
    seconds = (time.perf_counter() - start) / len(lines)
    whole_bytes = corpus_path.stat().st_size * _inflation(corpus_path)
    num = len(lines) if len(lines) < _SAMPLE else round(whole_bytes * len(lines) / text_bytes)
    text_mb, postings_m = num * text_bytes / len(lines) / 1e6, num * postings / len(lines) / 1e6
    tables_mb = num * _TABLE_BYTES / 1e6
    return Forecast(
        num_passages=num,
        index_mb=text_mb + postings_m * _POSTING_BYTES + tables_mb,
        scratch_mb=text_mb + postings_m * _PART_POSTING_BYTES + tables_mb,
        memory_mb=_MERGE_MB + _WORKER_MB * workers,
        minutes=num * seconds * (1 / workers + _MERGE_SHARE) / 60,
    )


def _inflation(path: Path) -> float:
    """How much larger the text is than its file, by the first megabytes."""
    if path.suffix != ".gz":
        return 1.0
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as text:
        return len(text.read(2**24)) / max(1, min(raw.tell(), path.stat().st_size))
