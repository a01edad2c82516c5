"""The files of IBM's repository mt-rag-benchmark: where they lie in a checkout, and their lines.

Tasks are JSON lines of a conversation up to a question (`input`); judgements are in BEIR's form,
one file a domain; each domain has a corpus of passages, JSON lines in a zip archive or unpacked.
"""

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
from convsearch.files import Record, field, is_id
from convsearch.passage_forms import parts_of
from convsearch.texts import parse_json, read_jsonl
from convsearch.types import Passage, Turn

DOMAINS = ("clapnq", "cloud", "fiqa", "govt")
_HUMAN = ("mtrag-human", "human")
"""Older versions of the repository call it by the second name."""
_UN = "mtragun-human"
_LFS = b"version https://git-lfs"
_SPEAKER_MARK = "|user|:"
_GET = "make a whole checkout of github.com/IBM/mt-rag-benchmark"


@dataclass(frozen=True, kw_only=True)
class MtragFiles:
    """Where the files of the chosen domains lie."""

    tasks: Path
    qrels: tuple[Path, ...]
    rewrites: tuple[Path, ...]
    """Human rewrites of the judged questions, to compare with."""
    corpora: tuple[Path, ...]
    un_tasks: Path | None
    """Of MTRAG-UN, where it is wanted."""
    un_qrels: tuple[Path, ...]

    def all(self) -> list[Path]:
        """Every file that is read."""
        un_tasks = [self.un_tasks] if self.un_tasks else []
        return [
            *(self.tasks, *self.qrels, *self.rewrites, *self.corpora),
            *(*un_tasks, *self.un_qrels),
        ]


def find_mtrag_files(source: Path, domains: Sequence[str], *, with_un: bool) -> MtragFiles:
    """source: a checkout. Raises MissingFileError for a file that is not there, DataError for one
    whose content was left with Git LFS."""
    if not source.is_dir():
        raise MissingFileError(f"{source}: no such folder; {_GET}, and name its folder")
    human = source / next((name for name in _HUMAN if (source / name).is_dir()), _HUMAN[0])
    retrieval = human / "retrieval_tasks"
    un_qrels = source / _UN / "retrieval_tasks" / "qrels"
    files = MtragFiles(
        tasks=human / "generation_tasks" / "reference.jsonl",
        qrels=tuple(retrieval / domain / "qrels" / "dev.tsv" for domain in domains),
        rewrites=tuple(retrieval / domain / f"{domain}_rewrite.jsonl" for domain in domains),
        corpora=tuple(_corpus(source / "corpora" / "passage_level", each) for each in domains),
        un_tasks=source / _UN / "generation_tasks" / "reference.jsonl" if with_un else None,
        un_qrels=tuple(un_qrels / f"{domain}.tsv" for domain in domains) if with_un else (),
    )
    for path in files.all():
        if not path.is_file():
            way_out = ", or leave MTRAG-UN out with --without-un" if _UN in path.parts else ""
            raise MissingFileError(f"{path}: no such file; {_GET}{way_out}")
        with path.open("rb") as content:
            if content.read(len(_LFS)) == _LFS:
                raise DataError(f'{path}: holds a pointer of Git LFS; run "git lfs pull" there')
    return files


def read_golds(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Task -> ids of its relevant passages, each once. Raises DataError."""
    golds: dict[str, dict[str, None]] = {}
    for path in paths:
        for qid, doc_id, is_relevant in judgements(path):
            if is_relevant:
                golds.setdefault(qid, {})[doc_id] = None
    return {qid: list(ids) for qid, ids in golds.items()}


def read_tasks(path: Path, counts: Counter[str]) -> dict[str, Turn]:
    """Task -> its turn, in the file's order, all of split `train`; what had to be mended is counted
    as in the pooled format. Answers (`targets`), passages (`contexts`) and labels are not read.
    Raises DataError, also for a task that occurs twice."""
    turns: dict[str, Turn] = {}
    for where, record in read_jsonl(path, allow_nan=True):  # labels that are not set are NaN
        messages = field(record, "input", list, where)
        last = messages[-1] if messages else None
        if not isinstance(last, dict) or last.get("speaker") != "user":
            raise DataError(f'{where}: field "input" must end with a question of the user; {_GET}')
        conv, number = field(record, "conversation_id", str, where), _number(record, where)
        said = [
            {**each, "role": each.get("speaker")} if isinstance(each, dict) else each
            for each in messages[:-1]
        ]
        asked = {
            "id": f"{conv}<::>{number}",
            "conv": conv,
            "turn": number,
            "split": "train",
            "question": field(last, "text", str, where).strip(),
            "history": said,
        }
        turn = pooled_turn(asked, where, counts)
        if turn.qid in turns:
            raise DataError(f"{where}: task {turn.qid!r} occurs twice; {_GET}")
        turns[turn.qid] = turn
    return turns


def read_human_rewrites(paths: Sequence[Path]) -> dict[str, str]:
    """Task -> its question, rewritten by a person so that it stands alone. Raises DataError."""
    return {
        field(record, "_id", str, where): field(record, "text", str, where)
        .removeprefix(_SPEAKER_MARK)
        .strip()
        for path in paths
        for where, record in read_jsonl(path)
    }


def read_corpora(paths: Sequence[Path]) -> Iterator[RawPassage]:
    """Streams the passages of all domains. Raises DataError that names file and line."""
    for path in paths:
        for where, record in _records(path):
            parts = parts_of(record, where)
            if not is_id(parts.doc_id):
                raise DataError(f"{where}: {parts.doc_id!r} is not an id without white space")
            passage = Passage(doc_id=parts.doc_id, title=parts.title, text=parts.text)
            yield RawPassage(raw_id=parts.doc_id, passage=passage, where=where)


def _corpus(folder: Path, domain: str) -> Path:
    """The file unpacked from the archive, where it is there; else the archive."""
    unpacked = folder / f"{domain}.jsonl"
    return unpacked if unpacked.is_file() else folder / f"{domain}.jsonl.zip"


def _records(path: Path) -> Iterator[tuple[str, Record]]:
    if path.suffix != ".zip":
        yield from read_jsonl(path)
        return
    with archive_errors(path), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if _is_corpus(name)]
        if len(names) != 1:
            raise DataError(f"{path}: expected one .jsonl file in it, found {len(names)}; {_GET}")
        with archive.open(names[0]) as stream:
            for number, line in enumerate(bounded_lines(stream, f"{path}: {names[0]}"), 1):
                if line.strip():
                    where = f"{path}: {names[0]}:{number}"
                    yield where, parse_json(line, where, _GET)


def _is_corpus(name: str) -> bool:
    """Archives made on a Mac hold a shadow of each file, whose name begins with `._`."""
    return name.endswith(".jsonl") and not Path(name).name.startswith(".")


def _number(record: Record, where: str) -> int:
    """Of the question in its conversation; MTRAG-UN writes it as a text."""
    number = record.get("turn")
    if isinstance(number, str) and number.strip().isdigit():
        return int(number)
    return field(record, "turn", int, where)
