"""The files of IBM's repository mt-rag-benchmark: where they lie in a checkout, and their lines.

Tasks are JSON lines of a conversation up to a question (`input`); judgements are in BEIR's form,
one file a domain; each domain has a corpus of passages, JSON lines in a zip archive or unpacked
beside it, as the repository's README has it.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.data.archives import archive_errors, bounded_lines
from convsearch.data.beir import judgements
from convsearch.data.corpus_job import RawPassage
from convsearch.data.pooled_turns import pooled_turn
from convsearch.errors import DataError, MissingFileError
from convsearch.files import Record, field, id_field, read_jsonl
from convsearch.passage_forms import parts_of
from convsearch.texts import parse_json
from convsearch.types import Passage, Turn

DOMAINS = ("clapnq", "cloud", "fiqa", "govt")
_SPEAKER_MARK = "|user|:"
_BUFFER_BYTES = 2**20
_GET = "make a whole checkout (git clone https://github.com/IBM/mt-rag-benchmark)"


@dataclass(frozen=True, kw_only=True)
class MtragFiles:
    """Where the files of the chosen domains lie."""

    tasks: Path
    qrels: tuple[Path, ...]
    rewrites: tuple[Path, ...]
    """Human rewrites of the judged questions, to compare with."""
    un_tasks: Path
    """Of MTRAG-UN."""
    un_qrels: tuple[Path, ...]
    corpora: tuple[Path, ...]

    def all(self) -> list[Path]:
        """Every file that is read."""
        single = [self.tasks, self.un_tasks]
        return [*single, *self.qrels, *self.rewrites, *self.un_qrels, *self.corpora]


def find_mtrag_files(source: Path, domains: Sequence[str]) -> MtragFiles:
    """source: a checkout. Raises MissingFileError for what is not there."""
    if not source.is_dir():
        raise MissingFileError(f"{source}: no such folder; {_GET} and name its folder")
    human, un = source / "mtrag-human", source / "mtragun-human"
    judged, corpora = human / "retrieval_tasks", source / "corpora" / "passage_level"
    files = MtragFiles(
        tasks=human / "generation_tasks" / "reference.jsonl",
        qrels=tuple(judged / each / "qrels" / "dev.tsv" for each in domains),
        rewrites=tuple(judged / each / f"{each}_rewrite.jsonl" for each in domains),
        un_tasks=un / "generation_tasks" / "reference.jsonl",
        un_qrels=tuple(un / "retrieval_tasks" / "qrels" / f"{each}.tsv" for each in domains),
        corpora=tuple(_corpus(corpora, each) for each in domains),
    )
    for path in files.all():
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file; {_GET}")
    return files


def read_golds(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Task -> ids of its relevant passages, each once. Raises DataError."""
    golds: dict[str, dict[str, None]] = {}
    for path in paths:
        for qid, doc_id, is_relevant in judgements(path):
            if is_relevant:
                golds.setdefault(qid, {})[doc_id] = None
    return {qid: list(ids) for qid, ids in golds.items()}


def read_tasks(path: Path, split: str, counts: Counter[str]) -> Iterator[tuple[str, Turn]]:
    """Every task as (`file:line`, turn); what had to be mended is counted as in the pooled format.

    Answers (`targets`), passages (`contexts`) and labels, which are NaN where they are not set, are
    not looked at. Raises DataError.
    """
    for where, record in read_jsonl(path, allow_nan=True):
        messages = field(record, "input", list, where)
        last = messages[-1] if messages else None
        if not isinstance(last, dict) or last.get("speaker") != "user":
            raise DataError(f'{where}: field "input" must end with a question of the user; {_GET}')
        conv, number = field(record, "conversation_id", str, where), _number(record, where)
        turn = {
            "id": f"{conv}<::>{number}",
            "conv": conv,
            "turn": number,
            "split": split,
            "question": field(last, "text", str, where).strip(),
            "history": [
                {"role": each.get("speaker"), "text": each.get("text")}
                if isinstance(each, dict)
                else each
                for each in messages[:-1]
            ],
        }
        yield where, pooled_turn(turn, where, counts)


def read_human_rewrites(paths: Sequence[Path]) -> dict[str, str]:
    """Task -> its question, rewritten by a person so that it stands alone. Raises DataError."""
    return {
        field(record, "_id", str, where): field(record, "text", str, where).removeprefix(
            _SPEAKER_MARK
        )
        for path in paths
        for where, record in read_jsonl(path)
    }


def read_corpora(paths: Sequence[Path]) -> Iterator[RawPassage]:
    """Streams the passages of all domains. Raises DataError that names file and line."""
    for path in paths:
        for where, record in _records(path):
            doc_id = id_field(record, "_id", where)
            _, title, text = parts_of(record, where)
            passage = Passage(doc_id=doc_id, title=title, text=text)
            yield RawPassage(raw_id=doc_id, passage=passage, where=where, page=doc_id)


def _corpus(folder: Path, domain: str) -> Path:
    unpacked = folder / f"{domain}.jsonl"
    return unpacked if unpacked.is_file() else folder / f"{domain}.jsonl.zip"


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    if path.suffix != ".zip":
        yield from read_jsonl(path)
        return
    with archive_errors(path), zipfile.ZipFile(path) as archive:
        name = path.name.removesuffix(".zip")
        if name not in archive.namelist():
            raise DataError(f"{path}: holds no {name}; {_GET}")
        # the stream's own reading of lines within a bound is slow, and stops short of it
        with io.BufferedReader(archive.open(name), _BUFFER_BYTES) as stream:  # pyright: ignore
            for number, line in enumerate(bounded_lines(stream, f"{path}: {name}"), 1):
                if line.strip():
                    where = f"{path}: {name}:{number}"
                    yield where, parse_json(line, where, _GET)


def _number(record: Record, where: str) -> int:
    """Of the turn; MTRAG-UN writes it as a text."""
    number = record.get("turn")
    if isinstance(number, str) and number.strip().isdecimal():
        return int(number)
    return field(record, "turn", int, where)
