"""Seven question sets in FlashRAG's layout: raw files to a question folder without a corpus.

Each raw line is `{"id", "question", "golden_answers", "metadata"}`. The papers on search agents
report on `test` where it is public and on `dev` where it is not (HotpotQA, 2WikiMultihopQA,
MuSiQue); both become our split `test`, so that one split is what they report on. No gold passages
are published for the corpus that is searched: only answers are scored.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convsearch.data.catalogue import RawFile
from convsearch.data.dataset import PASSPORT, QRELS
from convsearch.data.outputs import folder_output
from convsearch.data.pooled import SPLITS
from convsearch.data.published import check_counts
from convsearch.data.questions import QUESTIONS, write_questions
from convsearch.data.raw_turns import Kept, RawSource, question_of
from convsearch.data.staging import staged_folder
from convsearch.data.wiki18 import numbered_id
from convsearch.errors import ConfigError, DataError
from convsearch.files import Record, field, read_jsonl, write_qrels
from convsearch.passport import write_passport
from convsearch.types import Question

STAGE = "data qa-sets"
RAW_SPLITS = {
    "nq": ("train", "dev", "test"),
    "triviaqa": ("train", "dev", "test"),
    "popqa": ("test",),
    "hotpotqa": ("train", "dev"),
    "2wikimultihopqa": ("train", "dev"),
    "musique": ("train", "dev"),
    "bamboogle": ("test",),
}
"""Set -> the splits that are published, by the names of their files."""
PUBLISHED = {
    "raw_nq_train": 79_168,
    "raw_nq_dev": 8_757,
    "raw_nq_test": 3_610,
    "raw_triviaqa_train": 78_785,
    "raw_triviaqa_dev": 8_837,
    "raw_triviaqa_test": 11_313,
    "raw_popqa_test": 14_267,
    "raw_hotpotqa_train": 90_447,
    "raw_hotpotqa_dev": 7_405,
    "raw_2wikimultihopqa_train": 15_000,
    "raw_2wikimultihopqa_dev": 12_576,
    "raw_musique_train": 19_938,
    "raw_musique_dev": 2_417,
    "raw_bamboogle_test": 125,
}
"""Lines of each raw file: the table of data sets in FlashRAG's README."""


def split_of(name: str, raw_split: str) -> str:
    """Our split for a raw file: what the papers evaluate on is `test`."""
    return "test" if raw_split == "dev" and "test" not in RAW_SPLITS[name] else raw_split


def raw_files(source: RawSource, names: Sequence[str], splits: Sequence[str]) -> list[RawFile]:
    """The catalogue's entries of these sets and splits. Raises ConfigError for unknown words and
    where no such split is published, DataError where the catalogue lacks a file."""
    wanted = [file for _, _, file in _wanted(names, splits)]
    known = {
        file.name: file
        for name in dict.fromkeys(names)
        for file in source.known(f"qa_{name}").files
    }
    absent = [file for file in wanted if file not in known]
    if absent:
        raise DataError(f"the catalogue of downloads does not list {', '.join(absent)}; mend it")
    return [known[file] for file in wanted]


def convert_qa_sets(
    source: RawSource,
    out: Path,
    kept: Kept,
    *,
    names: Sequence[str],
    splits: Sequence[str] = SPLITS,
    fresh: bool = False,
) -> dict[str, int]:
    """Writes `questions.jsonl`, an empty `qrels.trec` and the passport; returns its counts.

    Only the files of the wanted splits are fetched. Blank and repeated answers are left out and
    counted; a question that has none left stays and is counted. Raises DataError,
    MissingFileError, DownloadError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    files = {each.name: each for each in source.fetch(raw_files(source, names, splits))}
    made_of = {
        "sets": list(dict.fromkeys(names)),
        "splits": list(splits),
        "raw_files": {file: each.sha256 for file, each in files.items()},
    }
    output = folder_output(out, STAGE, made_of, results=(QUESTIONS, QRELS))
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter({"without_answers": 0, "left_out_answers": 0})
    questions: dict[str, Question] = {}
    published: dict[str, int] = {}
    for name, raw_split, file in _wanted(names, splits):
        for where, record in read_jsonl(files[file].path):
            question = _question(record, name, raw_split, where, counts)
            if question.qid in questions:
                raise DataError(f"{where}: id {record['id']!r} occurs twice; fetch the file again")
            questions[question.qid] = question
            counts[f"raw_{name}_{raw_split}"] += 1
        key = f"raw_{name}_{raw_split}"
        if not counts[key]:
            raise DataError(f"{files[file].path}: no questions in this file; fetch it again")
        published[key] = PUBLISHED[key]
    counts["num_questions"] = len(questions)
    wrong = check_counts(
        counts, published, dict(kept.expected), allow_mismatch=kept.allow_count_mismatch
    )
    counts["count_mismatches"] = len(wrong)
    with staged_folder(out, owned=output.traces) as staging:
        write_questions(staging / QUESTIONS, questions.values())
        write_qrels(staging / QRELS, {})
        write_passport(
            staging / PASSPORT,
            stage=STAGE,
            settings=made_of,
            counts=counts,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _wanted(names: Sequence[str], splits: Sequence[str]) -> list[tuple[str, str, str]]:
    """(set, raw split, file name) of what is asked for."""
    for word, known in [*((n, RAW_SPLITS) for n in names), *((s, SPLITS) for s in splits)]:
        if word not in known:
            raise ConfigError(f"unknown {word!r}; choose from {', '.join(known)}")
    wanted = [
        (name, raw_split, f"{name}_{raw_split}.jsonl")
        for name in dict.fromkeys(names)
        for raw_split in RAW_SPLITS[name]
        if split_of(name, raw_split) in splits
    ]
    if not wanted:
        raise ConfigError(
            f"no split {' or '.join(splits)} of {', '.join(names)} is published; choose another"
        )
    return wanted


def _question(
    record: Record, name: str, raw_split: str, where: str, counts: Counter[str]
) -> Question:
    raw_id = numbered_id(record, where)
    listed = field(record, "golden_answers", list, where)
    if not all(isinstance(answer, str) for answer in listed):
        raise DataError(f'{where}: field "golden_answers" must hold texts; fetch the file again')
    answers = tuple(dict.fromkeys(text for answer in listed if (text := str(answer).strip())))
    counts["left_out_answers"] += len(listed) - len(answers)
    counts["without_answers"] += not answers
    metadata = record.get("metadata")
    kind = metadata.get("type") if isinstance(metadata, dict) else None
    own_id = raw_id if raw_id.startswith(raw_split) else f"{raw_split}_{raw_id}"
    return Question(
        qid=f"{name}-{own_id}",
        dataset=name,
        question=question_of(record, "question", where),
        answers=answers,
        type=kind if isinstance(kind, str) else "",
        split=split_of(name, raw_split),
    )
