"""QReCC (Anantha et al. 2021) in the form of SCAI-QReCC 2021: raw files to a data set folder.

`scai-qrecc21-{training,test}-turns.json` hold questions, answers, human rewrites and the raw ids of
relevant passages; `passages.zip` holds the 54,573,064 passages.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from convsearch import files as f
from convsearch.data.corpus_job import CorpusReport, check_found, make_corpus, prepared_folder
from convsearch.data.dataset import PASSPORT, QRELS, TURNS
from convsearch.data.json_array import read_json_array
from convsearch.data.outputs import folder_output
from convsearch.data.published import check_counts, check_early
from convsearch.data.qrecc_passages import read_passages_zip
from convsearch.data.raw_turns import (
    Kept,
    RawSource,
    alternating,
    count_turns,
    hold_out,
    question_of,
    write_human_rewrites,
)
from convsearch.errors import DataError
from convsearch.files import Qrels, Record
from convsearch.passport import write_passport
from convsearch.types import Turn

STAGE = "data qrecc"
SET_NAME = "qrecc"
PUBLISHED = {"num_raw_train_turns": 29_596, "num_passages_read": 54_573_064}
"""arXiv 2505.15776, table 7, and the comment on the corpus in its authors' preprocessing."""
TEST_SIZES = (8_124, 8_209)
"""Turns of the test split: table 7 of the paper, and its table 10 together with AdaRewriter."""
UNANSWERABLE = "UNANSWERABLE"
"""What an empty answer becomes in the history of later turns (paper, section on data)."""
GOLD_IDS = "gold_ids.tsv"
"""Passage id and raw id, of the relevant passages: for comparisons with files of SCAI-QReCC."""


@dataclass(kw_only=True)
class _Read:
    """What the two files of turns give."""

    turns: list[Turn] = field(default_factory=list)
    golds: dict[str, list[str]] = field(default_factory=dict)
    """qid -> raw ids."""
    rewrites: dict[str, str] = field(default_factory=dict)
    """qid -> human rewrite."""


def convert_qrecc(
    source: RawSource, out: Path, kept: Kept, *, fresh: bool = False
) -> dict[str, int]:
    """Writes `out` and returns the counts, which are also in its passport.

    Turns without a relevant passage are left out and counted (`turns_without_gold`); they stay in
    the histories of later turns. Where several passages bear one raw id all of them are relevant
    (`repeated_gold_ids`). Human rewrites go to files of their own. Raises DataError,
    MissingFileError, DownloadError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    raw_files = source.files(SET_NAME)
    job = {
        "name": SET_NAME if kept.keep_one_in == 1 else f"{SET_NAME}-1in{kept.keep_one_in}",
        "keep_one_in": kept.keep_one_in,
        "raw_files": {name: each.sha256 for name, each in raw_files.items()},
    }
    output = folder_output(
        out, STAGE, {**job, "validation_share": kept.validation_share, "seed": kept.seed}
    )
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter(turns_without_gold=0, empty_answers=0)
    with prepared_folder(out, job) as folder:
        read = _Read()
        for raw_split, split in (("training", "train"), ("test", "test")):
            path = raw_files[f"scai-qrecc21-{raw_split}-turns.json"].path
            _read_turns(path, split, read, counts)
        published = {**PUBLISHED, **_published_test_size(counts["num_raw_test_turns"])}
        if not kept.allow_count_mismatch:
            check_early(counts, published, dict(kept.expected))
        turns = hold_out(read.turns, share=kept.validation_share, seed=kept.seed)
        wanted = {raw_id: qid for qid, ids in read.golds.items() for raw_id in ids}
        report = make_corpus(
            folder,
            lambda: read_passages_zip(raw_files["passages.zip"].path),
            wanted=wanted.keys(),
            ids_are_numbers=True,
            keep_one_in=kept.keep_one_in,
            on_progress=source.on_progress,
        )
        check_found(wanted, report)
        _count(turns, report, counts)
        counts["count_mismatches"] = len(
            check_counts(
                counts,
                published,
                dict(kept.expected),
                allow_mismatch=kept.allow_count_mismatch,
            )
        )
        qrels: Qrels = {
            turn.qid: {i: 1 for raw_id in read.golds[turn.qid] for i in report.found[raw_id]}
            for turn in turns
        }
        f.write_turns(folder / TURNS, turns)
        f.write_qrels(folder / QRELS, qrels)
        counts["num_human_rewrites"] = write_human_rewrites(folder, turns, read.rewrites)
        _write_gold_ids(folder / GOLD_IDS, report)
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings={**job, "validation_share": kept.validation_share},
            counts=counts,
            seed=kept.seed,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def published_size_note(counts: Mapping[str, int]) -> str:
    """Which of the two published sizes of the test split the judgements give, in words."""
    size = counts["num_raw_test_turns"]
    sources = {TEST_SIZES[0]: "table 7 of the paper", TEST_SIZES[1]: "table 10 and AdaRewriter"}
    told = sources.get(size, "neither of the published sizes 8,124 and 8,209")
    return f"turns of the test split with a relevant passage: {size:,} ({told})"


def _read_turns(path: Path, split: str, read: _Read, counts: Counter[str]) -> None:
    """Reads one file of turns; a history is what was said before in the same conversation."""
    prefix = {"train": "QReCC-Train", "test": "QReCC-Test"}[split]
    conversation, number, said = "", 0, []
    seen: set[str] = set()
    num_before = len(read.turns)
    for where, record in read_json_array(path):
        conv = f"{prefix}_{f.field(record, 'Conversation_no', int, where)}"
        turn_no = f.field(record, "Turn_no", int, where)
        if conv != conversation:
            if conv in seen:
                raise DataError(f"{where}: the turns of {conv} do not stand together")
            seen.add(conv)
            conversation, said = conv, []
        elif turn_no != number + 1:
            raise DataError(f"{where}: turn {turn_no} of {conv} follows turn {number}")
        number = turn_no
        question = question_of(record, "Question", where)
        golds = f.field(record, "Truth_passages", list, where)
        if not all(isinstance(raw_id, str) and raw_id for raw_id in golds):
            raise DataError(f'{where}: "Truth_passages" must hold ids')
        if golds:
            qid = f"{conv}_{turn_no}"
            read.turns.append(
                Turn(
                    qid=qid,
                    conv_id=conv,
                    turn=turn_no,
                    split=split,
                    question=question,
                    history=alternating(said, where, counts),
                )
            )
            read.golds[qid] = list(dict.fromkeys(golds))
            read.rewrites[qid] = _text_of(record, ("Truth_rewrite", "Rewrite"), where)
        counts["turns_without_gold"] += not golds
        answer = _text_of(record, ("Truth_answer", "Answer"), where)
        counts["empty_answers"] += not answer
        said += [question, answer or UNANSWERABLE]
    kept = len(read.turns) - num_before
    if not kept:
        raise DataError(f"{path}: no turn with a relevant passage")
    counts[f"num_raw_{split}_turns"] = kept


def _text_of(record: Record, names: tuple[str, str], where: str) -> str:
    """The field of the SCAI files, or that of the first release of QReCC. Raises DataError where
    the record has neither, or it is no text."""
    name = next((name for name in names if name in record), names[0])
    return f.field(record, name, str, where).strip()


def _published_test_size(size: int) -> dict[str, int]:
    """Both published sizes are right; any other one is compared with the first."""
    return {"num_raw_test_turns": size if size in TEST_SIZES else TEST_SIZES[0]}


def _count(turns: list[Turn], report: CorpusReport, counts: Counter[str]) -> None:
    count_turns(turns, counts)
    counts["num_passages"] = report.num_passages
    counts["num_passages_read"] = report.num_read
    counts["num_blank_passages"] = report.num_blank
    counts["repeated_gold_ids"] = sum(len(ids) > 1 for ids in report.found.values())


def _write_gold_ids(path: Path, report: CorpusReport) -> None:
    with f.atomic_write(path) as out:
        for raw_id, doc_ids in report.found.items():
            for doc_id in doc_ids:
                out.write(f"{doc_id}\t{raw_id}\n")
