"""The wiki-18 corpus of search agents: `wiki-18.jsonl.gz` to `corpus.jsonl`, in flat memory.

The published file is a gzipped tar archive with one `.jsonl` in it, although its name says
otherwise; a plain gzipped file of lines is read as well. A line is `{"id", "contents"}`, contents
being the title in quotation marks, a line break and the text.
"""

import gzip
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from convsearch.data.archives import DAMAGED, bounded_lines
from convsearch.data.corpus_job import RawPassage, make_corpus, prepared_folder
from convsearch.data.dataset import CORPUS, PASSPORT
from convsearch.data.outputs import folder_output
from convsearch.data.published import check_counts
from convsearch.data.questions import QUESTIONS
from convsearch.data.raw_turns import Kept, RawSource
from convsearch.errors import DataError, MissingFileError
from convsearch.files import Record, field, id_field
from convsearch.passage_forms import title_and_text
from convsearch.passport import write_passport
from convsearch.texts import parse_json
from convsearch.types import Passage

STAGE = "data wiki18"
SET_NAME = "wiki18"
FILE = "wiki-18.jsonl.gz"
PUBLISHED = {"num_passages_read": 21_015_324}
"""Lines of the unpacked file, as counted by several projects that use it."""


def convert_wiki18(
    source: RawSource, out: Path, kept: Kept, *, fresh: bool = False
) -> dict[str, int]:
    """Writes `corpus.jsonl` and its passport; returns the counts.

    A corpus that an interrupted call had finished is used again. Raises DataError,
    MissingFileError, DownloadError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    if (out / QUESTIONS).is_file():
        raise DataError(f"{out}: holds questions; name a folder of its own for the corpus")
    fetched = source.files(SET_NAME)[FILE]
    job = {
        "name": SET_NAME,
        "keep_one_in": kept.keep_one_in,
        "raw_files": {FILE: fetched.sha256},
    }
    output = folder_output(out, STAGE, job, results=(CORPUS,))
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter()
    with prepared_folder(out, job) as folder:
        report = make_corpus(
            folder,
            lambda: read_wiki18(fetched.path),
            wanted=frozenset(),
            keep_one_in=kept.keep_one_in,
            on_progress=source.on_progress,
        )
        counts["num_passages"] = report.num_passages
        counts["num_passages_read"] = report.num_read
        counts["num_blank_passages"] = report.num_blank
        wrong = check_counts(
            counts, PUBLISHED, dict(kept.expected), allow_mismatch=kept.allow_count_mismatch
        )
        counts["count_mismatches"] = len(wrong)
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings=job,
            counts=counts,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def read_wiki18(path: Path) -> Iterator[RawPassage]:
    """Streams the passages. Raises MissingFileError, and DataError that names the line."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    number = 0
    try:
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                where = f"{path}:{number}"
                yield _passage(parse_json(line, where, "fetch it again"), where)
    except DAMAGED as error:
        raise DataError(f"{path}: damaged after line {number} ({error}); fetch it again") from None


def numbered_id(record: Record, where: str) -> str:
    """The field `id` of FlashRAG's files, also where it is a number. Raises DataError."""
    value = record.get("id")
    return str(value) if type(value) is int else id_field(record, "id", where)


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as unpacked:
        head = unpacked.read(tarfile.BLOCKSIZE)
    if not head.lstrip().startswith(b"{"):
        yield from _tar_lines(path)
        return
    with gzip.open(path, "rb") as unpacked:
        yield from bounded_lines(unpacked, str(path))


def _tar_lines(path: Path) -> Iterator[bytes]:
    # tarfile's own "r|gz" unpacks ten kilobytes at a time, however much they become
    with gzip.open(path, "rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jsonl"):
                content = archive.extractfile(member)
                if content is not None:
                    yield from bounded_lines(content, str(path))
                    return
    raise DataError(f"{path}: an archive without a .jsonl file in it; fetch it again")


def _passage(record: Record, where: str) -> RawPassage:
    doc_id = numbered_id(record, where)
    title, text = title_and_text(field(record, "contents", str, where))
    return RawPassage(
        raw_id=doc_id, passage=Passage(doc_id=doc_id, title=title, text=text), where=where
    )
