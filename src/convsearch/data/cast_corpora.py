"""The collections that TREC CAsT searches, each in the form in which its publisher gives it.

| years | collection | file | ids |
| --- | --- | --- | --- |
| 2019, 2020 | MS MARCO passages v1 | `collection.tar.gz` or `collection.tsv` | `MARCO_<id>` |
| 2019, 2020 | TREC CAR v2.0 | `paragraphCorpus.v2.0.tar.xz` or the `.cbor` in it | `CAR_<id>` |
| 2021 | MS MARCO documents v1 | `msmarco-docs.tsv.gz` or `.tsv` | `MARCO_<id>` |
| 2021 | KILT Wikipedia | `kilt_knowledgesource.json` | `KILT_<id>` |
| 2021 | Washington Post v4 (agreement with NIST) | `*.jl` or `*.jsonl` | `WAPO_<id>` |

The judgements of 2021 are of documents, so documents are the passages of that year.
"""

import html
import re
import tarfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from convsearch.data.archives import archive_errors, bounded_lines
from convsearch.data.cbor import CborError, read_paragraphs
from convsearch.data.corpus_job import RawPassage
from convsearch.errors import DataError, MissingFileError
from convsearch.files import Record, field, read_jsonl, read_lines
from convsearch.texts import decoded
from convsearch.types import Passage

_BUFFER_BYTES = 2**20
_TAG = re.compile(r"<[^>]*>")


def read_marco_passages(path: Path, skipped: Set[str] = frozenset()) -> Iterator[RawPassage]:
    """`id`, tab, `text` a line. skipped: ids (`MARCO_...`) of near duplicates to leave out."""
    with _member(path, ".tsv") as stream:
        # not through a text wrapper, which would want to seek
        for number, line in enumerate(bounded_lines(stream, str(path)), 1):
            where = f"{path}:{number}"
            raw_id, tab, text = decoded(line, where).rstrip("\r\n").partition("\t")
            if not tab or not raw_id.isdigit():
                raise DataError(f"{where}: expected an id, a tab and a text")
            if f"MARCO_{raw_id}" not in skipped:
                yield _made(f"MARCO_{raw_id}", "", text, where)


def read_car(path: Path) -> Iterator[RawPassage]:
    """Paragraphs of TREC CAR, from the archive or from the `.cbor` file in it."""
    with _member(path, ".cbor") as stream:
        try:
            for number, (raw_id, text) in enumerate(read_paragraphs(stream), 1):
                yield _made(f"CAR_{raw_id}", "", text, f"{path}: paragraph {number}")
        except (CborError, RecursionError) as error:
            raise DataError(f"{path}: {error}; check the download with --verify") from None


def read_marco_documents(path: Path) -> Iterator[RawPassage]:
    """`id`, `url`, `title`, `body` a line, by tabs."""
    for where, line in read_lines(path):
        columns = line.rstrip("\r\n").split("\t")
        if len(columns) != 4:
            raise DataError(f"{where}: expected 4 columns (id, url, title, body)")
        yield _made(f"MARCO_{columns[0]}", columns[2], columns[3], where)


def read_kilt(path: Path) -> Iterator[RawPassage]:
    """One page a line: `wikipedia_id`, `wikipedia_title`, `text` (a list of paragraphs)."""
    for where, record in read_jsonl(path):
        paragraphs = field(record, "text", list, where)
        text = " ".join(str(paragraph).strip() for paragraph in paragraphs)
        title = field(record, "wikipedia_title", str, where)
        yield _made(f"KILT_{_id(record, 'wikipedia_id', where)}", title, text, where)


def read_wapo(path: Path) -> Iterator[RawPassage]:
    """One article a line: `id`, `title`, `contents` (a list, whose paragraphs are taken; their
    HTML tags are removed)."""
    for where, record in read_jsonl(path):
        paragraphs = [
            html.unescape(_TAG.sub(" ", str(part.get("content") or "")))
            for part in field(record, "contents", list, where)
            if isinstance(part, dict) and part.get("subtype") == "paragraph"
        ]
        title = "" if record.get("title") is None else field(record, "title", str, where)
        text = " ".join(" ".join(paragraphs).split())
        yield _made(f"WAPO_{_id(record, 'id', where)}", title, text, where)


def read_duplicates(path: Path) -> set[str]:
    """Ids to leave out, from the track's list of near duplicates: `kept:copy,copy,...` a line."""
    copies: set[str] = set()
    for where, line in read_lines(path):
        _, colon, listed = line.strip().partition(":")
        if not colon:
            raise DataError(f"{where}: expected an id, a colon and ids by commas")
        copies.update(word for word in listed.split(",") if word)
    return copies


def _made(doc_id: str, title: str, text: str, where: str) -> RawPassage:
    passage = Passage(doc_id=doc_id, title=title, text=text)
    return RawPassage(raw_id=doc_id, passage=passage, where=where)


def _id(record: Record, name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str | int) or str(value).split() != [str(value)]:
        raise DataError(f'{where}: field "{name}" must be an id without white space')
    return str(value)


@contextmanager
def _member(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    """The file itself, or the first one with this suffix in a tar archive; never unpacked to disk.

    Raises MissingFileError, and DataError for a damaged archive or one without such a file.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    try:
        if path.suffix == suffix:
            with path.open("rb", buffering=_BUFFER_BYTES) as stream:
                yield stream
            return
        with archive_errors(path), tarfile.open(path, mode="r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(suffix):
                    extracted = archive.extractfile(member)
                    if extracted is not None:
                        yield extracted
                        return
        raise DataError(f"{path}: holds no {suffix} file; fetch it again")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; check the download with --verify") from None
