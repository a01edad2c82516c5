"""What building an index of words will take, judged by the first passages of the corpus."""

import gzip
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError
from convsearch.passages import parse_passage, passage_lines
from convsearch.texts import parse_json
from retriever_server.cores import num_cores

_SAMPLE = 2_000
_TABLE_BYTES = 41
"""Offsets, order, hashes and length of a passage."""
_POSTING_BYTES, _PART_POSTING_BYTES = 5, 8
"""Of the index with its entries, and of the parts that it is merged from."""
_WORKER_MB, _MERGE_MB = 250, 600
_MERGE_SHARE = 0.3
"""Time of the merge as a share of the analysis on one processor."""
_LUCENE_SHARE, _LUCENE_MB_PER_S = 0.9, 2.6
"""Disk for each byte of the corpus, and corpus for each second of a processor: 0.86 and 2.6 with
53,710 passages of Wikipedia on an AVX2 machine (2026-11-29)."""
_PYTHON_MB = 200
"""Of the process around Java, whose heap comes on top."""


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
            f"about {self.num_passages:,} passages: {_megabytes(self.index_mb)} on disk and "
            f"{_megabytes(self.scratch_mb)} more while building, "
            f"{_megabytes(self.memory_mb)} of memory, {_duration(self.minutes)}"
        )

    def after(self, done: int) -> str:
        """What is left of the time where a killed build has left so many passages."""
        left = max(0.0, 1 - done / self.num_passages)
        return (
            f"goes on after {done:,} passages, which are read but not indexed again: about "
            f"{_duration(self.minutes * left)} of these"
        )


def _megabytes(number: float) -> str:
    return f"{number:,.0f} MB" if number >= 1 else "less than 1 MB"


def _duration(minutes: float) -> str:
    return f"{minutes:,.1f} minutes" if minutes >= 0.1 else "less than 0.1 minutes"


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    """The corpus by its first passages."""

    num_passages: int
    text_mb: float
    """Of the whole corpus, unpacked."""
    postings_m: float
    """Millions of different terms of all passages."""
    seconds: float
    """To read and analyse all of it on one processor."""


def forecast_bm25(corpus_path: Path, *, workers: int | None = None) -> Forecast:
    """Reads and analyses the first 2,000 passages. Raises DataError or MissingFileError for a
    corpus that is empty, bad in these lines, or not there."""
    workers = workers or num_cores()
    sampled = _sample(corpus_path)
    tables_mb = sampled.num_passages * _TABLE_BYTES / 1e6
    return Forecast(
        num_passages=sampled.num_passages,
        index_mb=sampled.text_mb + sampled.postings_m * _POSTING_BYTES + tables_mb,
        scratch_mb=sampled.text_mb + sampled.postings_m * _PART_POSTING_BYTES + tables_mb,
        memory_mb=_MERGE_MB + _WORKER_MB * workers,
        minutes=sampled.seconds * (1 / workers + _MERGE_SHARE) / 60,
    )


def forecast_lucene(corpus_path: Path, *, heap_mb: float, threads: int | None = None) -> Forecast:
    """Of an index that Lucene builds, its passages within it. heap_mb: the largest heap of Java.
    Raises as `forecast_bm25` does."""
    sampled = _sample(corpus_path)
    index_mb = sampled.text_mb * _LUCENE_SHARE
    return Forecast(
        num_passages=sampled.num_passages,
        index_mb=index_mb,
        scratch_mb=index_mb,  # the segments that a merge reads, beside the one it writes
        memory_mb=_PYTHON_MB + heap_mb + sampled.num_passages * 8 / 1e6,
        minutes=sampled.text_mb / _LUCENE_MB_PER_S / (threads or num_cores()) / 60,
    )


def _sample(corpus_path: Path) -> _Sampled:
    from retriever_server.analyzer import Analyzer

    analyze = Analyzer()
    start = time.perf_counter()
    lines = list(itertools.islice(passage_lines(corpus_path), _SAMPLE))
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
    return _Sampled(
        num_passages=num,
        text_mb=num * text_bytes / len(lines) / 1e6,
        postings_m=num * postings / len(lines) / 1e6,
        seconds=num * seconds,
    )


def _inflation(path: Path) -> float:
    """How much larger the text is than its file, by the first megabytes."""
    if path.suffix != ".gz":
        return 1.0
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as text:
        return len(text.read(2**24)) / max(1, min(raw.tell(), path.stat().st_size))
