"""Questions for search agents: their file, their folder, and the adapter from the pooled format.

A question folder holds `questions.jsonl` (one `Question` a line), `corpus.jsonl`, `qrels.trec`
with the gold passages, and `run.json`; sets that share one corpus leave it out. Questions may lack
answers (then only retrieval is measured) or gold passages (then only answers are); both are
counted.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.data.dataset import CORPUS, PASSPORT, QRELS, find_file
from convsearch.data.outputs import QUESTIONS, folder_output
from convsearch.data.pooled import check_all_found, pooled_files
from convsearch.data.staging import staged_folder
from convsearch.errors import DataError, MissingFileError
from convsearch.files import (
    Qrels,
    Record,
    field,
    gold_ids,
    id_field,
    read_jsonl,
    read_qrels,
    write_jsonl,
    write_qrels,
)
from convsearch.passages import unique_passages, write_passages
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Passage, Question

STAGE = "data qa"
_LIST_COMMA = re.compile(r",\s*(?=['\"])")
_NEXT_STEP = 'make a question folder with "convsearch data qa"'


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """An opened question folder. The corpus stays on disk."""

    folder: Path
    questions_path: Path
    corpus_path: Path | None
    """None where the folder has no corpus, as with sets that share one of tens of gigabytes."""
    qrels_path: Path
    all_questions: tuple[Question, ...]
    qrels: Qrels

    def questions(self, split: str | None = None, dataset: str | None = None) -> list[Question]:
        """Those of a split and a data set. Raises DataError where there are none."""
        kept = [
            q
            for q in self.all_questions
            if split in (None, q.split) and dataset in (None, q.dataset)
        ]
        if not kept:
            there = sorted({f"{q.dataset}/{q.split}" for q in self.all_questions})
            raise DataError(
                f"{self.questions_path}: no questions of {dataset or 'any set'}/{split or 'any'}; "
                f"here are {', '.join(there)}"
            )
        return kept

    def golds(self, qid: str) -> list[str]:
        """The gold passages of a question; empty where none are known."""
        return gold_ids(self.qrels, qid) if qid in self.qrels else []


def load_questions(folder: Path) -> QuestionSet:
    """Opens a question folder. The corpus may be missing; an empty `qrels.trec` says that no gold
    passages are known. Raises MissingFileError that names each other file not there, DataError
    for a bad file, or relevance judgements of other questions."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; {_NEXT_STEP}")
    paths = {name: find_file(folder, name) for name in (QUESTIONS, CORPUS, QRELS)}
    questions_path, corpus_path, qrels_path = paths.values()
    if questions_path is None or qrels_path is None:
        missing = [name for name in (QUESTIONS, QRELS) if paths[name] is None]
        raise MissingFileError(f"{folder}: {' and '.join(missing)} missing; {_NEXT_STEP}")
    questions = tuple(read_questions(questions_path))
    qrels = read_qrels(qrels_path) if qrels_path.stat().st_size else {}
    strange = sorted(set(qrels) - {q.qid for q in questions})
    if strange:
        raise DataError(
            f"{qrels_path}: judges qid {strange[0]!r}, which is not in {questions_path.name}; use "
            "the qrels of the same questions"
        )
    return QuestionSet(
        folder=folder,
        questions_path=questions_path,
        corpus_path=corpus_path,
        qrels_path=qrels_path,
        all_questions=questions,
        qrels=qrels,
    )


def read_questions(path: Path) -> list[Question]:
    """Reads `questions.jsonl`. Raises DataError for a bad line, a repeated qid, or none at all."""
    questions: dict[str, Question] = {}
    for where, record in read_jsonl(path):
        question = _question(record, "qid", where)
        if question.qid in questions:
            raise DataError(f"{where}: qid {question.qid!r} occurs twice; ids must be unique")
        questions[question.qid] = question
    if not questions:
        raise DataError(f"{path}: no questions in this file; {_NEXT_STEP}")
    return list(questions.values())


def write_questions(path: Path, questions: Iterable[Question]) -> int:
    """Writes `questions.jsonl`; returns how many."""
    return write_jsonl(path, map(asdict, questions))


def convert_questions(source: Path, out: Path, *, fresh: bool = False) -> dict[str, int]:
    """Writes a question folder from one in the pooled format; returns the counts of its passport.

    The source holds `corpus.jsonl` (`id`, `title`, `text`) and one or more of `train.jsonl`,
    `dev.jsonl`, `test.jsonl` (`id`, `dataset`, `question`, `answers`, `type`, `split`, `gold`),
    each plain or `.gz`. Every question and passage of it is kept. The split is the file's; the
    field `split` tells of the set that a question came from. Answers that are one text in the shape
    of a list are taken apart and counted. An output of the same files is kept; fresh: makes it
    anew. Raises DataError, MissingFileError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    corpus_path, paths = pooled_files(source, out)
    files = [corpus_path, *paths]
    made_of = {
        "name": source.resolve().name,
        **{file.name: sha256_of(file) for file in files},
    }
    output = folder_output(out, STAGE, made_of, results=(QUESTIONS, CORPUS, QRELS), sources=files)
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter({"without_answers": 0, "without_gold": 0, "mended_answers": 0})
    questions, qrels, mentions = _collect(paths, counts)
    with staged_folder(out, owned=output.traces) as staging:
        counts["num_questions"] = write_questions(staging / QUESTIONS, questions)
        counts["num_passages"] = write_passages(staging / CORPUS, _passages(corpus_path, mentions))
        check_all_found(mentions, corpus_path)
        write_qrels(staging / QRELS, qrels)
        write_passport(
            staging / PASSPORT,
            stage=STAGE,
            settings={"name": source.resolve().name, "source": str(source)},
            inputs=[corpus_path, *paths],
            counts=counts,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _collect(
    paths: list[Path], counts: Counter[str]
) -> tuple[list[Question], Qrels, dict[str, str]]:
    """Questions, their gold passages, and for each gold passage the first line that names it."""
    questions: dict[str, Question] = {}
    qrels: Qrels = {}
    mentions: dict[str, str] = {}
    for path in paths:
        for where, record in read_jsonl(path):
            if isinstance(record.get("answers"), str):
                record = {**record, "answers": _taken_apart(str(record["answers"]))}
                counts["mended_answers"] += 1
            split = path.name.partition(".")[0]
            question = _question({**record, "split": split}, "id", where)
            if question.qid in questions:
                raise DataError(f"{where}: id {question.qid!r} occurs twice; ids must be unique")
            golds = _texts(record, "gold", where)
            for gold in golds:
                mentions.setdefault(gold, where)
            if golds:
                qrels[question.qid] = dict.fromkeys(golds, 1)
            questions[question.qid] = question
            counts[f"{question.dataset}_{question.split}"] += 1
            counts["without_answers"] += not question.answers
            counts["without_gold"] += not golds
    if not questions:
        raise DataError(f"{paths[0].parent}: no questions in {', '.join(p.name for p in paths)}")
    return list(questions.values()), qrels, mentions


def _passages(path: Path, mentions: dict[str, str]) -> Iterator[Passage]:
    """Streams the corpus and takes what it holds out of `mentions`."""
    for passage in unique_passages(path, lambda: _read_passages(path)):
        mentions.pop(passage.doc_id, None)
        yield passage


def _read_passages(path: Path) -> Iterator[tuple[str, Passage]]:
    for where, record in read_jsonl(path):
        title, text = (field(record, name, str, where) for name in ("title", "text"))
        yield where, Passage(doc_id=id_field(record, "id", where), title=title, text=text)


def _question(record: Record, id_name: str, where: str) -> Question:
    text = field(record, "question", str, where)
    if not text.strip():
        raise DataError(f'{where}: field "question" is empty; remove the line or mend it')
    return Question(
        qid=id_field(record, id_name, where),
        dataset=id_field(record, "dataset", where),
        question=text,
        answers=_texts(record, "answers", where),
        type=field(record, "type", str, where),
        split=id_field(record, "split", where),
    )


def _taken_apart(listed: str) -> list[str]:
    """The answers of a list that was printed with its quotes half lost: `[A b, 'C', "D's"]`."""
    inner = listed.strip().removeprefix("[").removesuffix("]")
    parts = (part.strip().strip("'\"").strip() for part in _LIST_COMMA.split(inner))
    return [part for part in parts if part]


def _texts(record: Record, name: str, where: str) -> tuple[str, ...]:
    values = field(record, name, list, where)
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise DataError(f'{where}: field "{name}" must hold texts that are not empty')
    return tuple(str(value) for value in values)
