"""TREC CAsT 2019, 2020 and 2021 (paper, table 9): topics and NIST's judgements to a data set.

All turns are of the split `test`. Judgements are graded, and every grade is kept: from which one on
a passage counts as relevant for MRR and recall is chosen when it is evaluated. The collections are
large and one of them is not public, so the corpus is made only when asked for; evaluation against
an index made elsewhere needs none.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from convsearch.data import cast_corpora as corpora
from convsearch.data.cast_topics import TopicTurn, Year, read_topics
from convsearch.data.corpus_job import (
    CorpusReport,
    RawPassage,
    check_found,
    make_corpus,
    prepared_folder,
)
from convsearch.data.dataset import PASSPORT, QRELS, TURNS
from convsearch.data.download import Fetched
from convsearch.data.outputs import folder_output
from convsearch.data.published import check_counts
from convsearch.data.raw_turns import Kept, RawSource, count_turns, write_human_rewrites
from convsearch.errors import ConfigError, DataError
from convsearch.files import Qrels, read_qrels, write_qrels, write_turns
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Message, Turn

STAGE = "data cast"
PUBLISHED: dict[int, dict[str, int]] = {
    2019: {"num_raw_turns": 479, "num_judged_turns": 173, "num_judgements": 29_350},
    2020: {"num_raw_turns": 216, "num_judged_turns": 208, "num_judgements": 40_451},
    2021: {},
}
"""From ir_datasets (trec-cast/v1/2019 and v1/2020); no source at hand for 2021."""
NUM_PASSAGES_WITHOUT_DUPLICATES = 38_622_444
"""MS MARCO and TREC CAR without near duplicates, from ir_datasets (trec-cast/v1)."""
WITHOUT_CORPUS = (
    "the collection was not converted: evaluate against an index of it that you have "
    "(convsearch eval --retriever-url or --index), or convert again with --with-corpus"
)
_TOPICS = {
    2019: ("evaluation_topics_v1.0.json", "2019qrels.txt"),
    2020: ("2020_manual_evaluation_topics_v1.0.json", "2020qrels.txt"),
    2021: ("2021_manual_evaluation_topics_v1.0.json", "trec-cast-qrels-docs.2021.qrel"),
}
_RESOLVED_2019 = "evaluation_topics_annotated_resolved_v1.0.tsv"


@dataclass(frozen=True, kw_only=True)
class CastSettings:
    """What of a year is taken."""

    year: Year
    with_corpus: bool = False
    """Fetches and converts the collection."""
    wapo: Path | None = None
    """2021: the Washington Post collection, for those who have it."""
    duplicates: Path | None = None
    """2019, 2020: the track's list of near duplicates in MS MARCO, which are left out."""
    allow_missing_gold: bool = False
    """Judged passages outside the corpus are dropped and counted instead of an error."""

    def __post_init__(self) -> None:
        if self.year not in _TOPICS:
            raise ConfigError(f"year must be 2019, 2020 or 2021, got {self.year}")


def convert_cast(
    source: RawSource, out: Path, kept: Kept, settings: CastSettings, *, fresh: bool = False
) -> dict[str, int]:
    """Writes `out` and returns the counts, which are also in its passport.

    Turns without a judgement or without a relevant passage are left out and counted; they stay in
    the histories of later turns. Where the text of an answer is not known (2019; 2020 without the
    corpus) it is empty in the histories. Raises DataError, MissingFileError, DownloadError or
    ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    year = settings.year
    topic_files = source.files(f"cast{year}")
    collection = _fetch_collection(source, settings)
    job = {
        "name": f"cast{year}" if kept.keep_one_in == 1 else f"cast{year}-1in{kept.keep_one_in}",
        "keep_one_in": kept.keep_one_in,
        "raw_files": {name: each.sha256 for name, each in {**topic_files, **collection}.items()},
        "own_files": {
            str(path): sha256_of(path) for path in (settings.wapo, settings.duplicates) if path
        },
        **({} if settings.with_corpus else {"without_corpus": WITHOUT_CORPUS}),
    }
    made_of = {
        **job,
        "own_files": [sha256_of(path) for path in (settings.wapo, settings.duplicates) if path],
        "allow_missing_gold": settings.allow_missing_gold,
    }
    output = folder_output(out, STAGE, made_of, results=(TURNS, QRELS))
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter()
    with prepared_folder(out, job) as folder:
        topics_name, qrels_name = _TOPICS[year]
        resolved = topic_files[_RESOLVED_2019].path if year == 2019 else None
        asked = read_topics(year, topic_files[topics_name].path, resolved)
        judged = read_qrels(topic_files[qrels_name].path)
        qrels = _graded(judged)
        counts["num_raw_turns"] = len(asked)
        counts["num_judged_turns"] = sum(turn.qid in qrels for turn in asked)
        counts["num_judgements"] = sum(map(len, qrels.values()))
        published = dict(PUBLISHED[year])
        answers = {turn.answer_id for turn in asked if turn.answer_id}
        texts: dict[str, str] = {}
        if settings.with_corpus:
            report = make_corpus(
                folder,
                lambda: _passages({name: each.path for name, each in collection.items()}, settings),
                wanted=_golds(judged).keys() | answers,
                with_text=answers,
                keep_one_in=kept.keep_one_in,
                on_progress=source.on_progress,
            )
            if not settings.allow_missing_gold:
                check_found(_golds(qrels), report)
            texts = report.texts
            counts["gold_outside_corpus"] = _drop_missing(qrels, report, settings)
            counts["num_passages"] = report.num_passages
            counts["num_passages_read"] = report.num_read
            counts["num_blank_passages"] = report.num_blank
            if settings.duplicates and year != 2021:
                published["num_passages_read"] = NUM_PASSAGES_WITHOUT_DUPLICATES
        turns = _turns(asked, qrels, texts, counts)
        count_turns(turns, counts)
        counts["count_mismatches"] = len(
            check_counts(
                counts,
                published,
                dict(kept.expected),
                allow_mismatch=kept.allow_count_mismatch,
            )
        )
        write_turns(folder / TURNS, turns)
        write_qrels(folder / QRELS, {turn.qid: qrels[turn.qid] for turn in turns})
        rewrites = {turn.qid: turn.rewrite for turn in asked}
        counts["num_human_rewrites"] = write_human_rewrites(folder, turns, rewrites)
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings={**job, "allow_missing_gold": settings.allow_missing_gold},
            counts=counts,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _fetch_collection(source: RawSource, settings: CastSettings) -> dict[str, Fetched]:
    if not settings.with_corpus:
        if settings.wapo or settings.duplicates:
            raise ConfigError("--wapo and --marco-duplicates belong to --with-corpus; add it")
        return {}
    return source.files("cast_documents" if settings.year == 2021 else "cast_passages")


def _graded(qrels: Qrels) -> Qrels:
    """Negative grades (spam, duplicates) become 0."""
    return {qid: {i: max(0, grade) for i, grade in grades.items()} for qid, grades in qrels.items()}


def _golds(qrels: Qrels) -> dict[str, str]:
    """Relevant passage -> a turn that it is relevant for."""
    return {i: qid for qid, grades in qrels.items() for i, grade in grades.items() if grade > 0}


def _passages(paths: Mapping[str, Path], settings: CastSettings) -> Iterator[RawPassage]:
    if settings.year == 2021:
        yield from corpora.read_marco_documents(paths["msmarco-docs.tsv.gz"])
        yield from corpora.read_kilt(paths["kilt_knowledgesource.json"])
        if settings.wapo:
            yield from corpora.read_wapo(settings.wapo)
        return
    skipped = corpora.read_duplicates(settings.duplicates) if settings.duplicates else frozenset()
    yield from corpora.read_marco_passages(paths["collection.tar.gz"], skipped)
    yield from corpora.read_car(paths["paragraphCorpus.v2.0.tar.xz"])


def _drop_missing(qrels: Qrels, report: CorpusReport, settings: CastSettings) -> int:
    """Takes relevant passages outside the corpus out of the judgements; returns how many."""
    dropped = 0
    if settings.allow_missing_gold:
        for grades in qrels.values():
            for doc_id in [i for i, grade in grades.items() if grade > 0]:
                if doc_id not in report.found:
                    del grades[doc_id]
                    dropped += 1
    return dropped


def _turns(
    asked: list[TopicTurn], qrels: Qrels, texts: Mapping[str, str], counts: Counter[str]
) -> list[Turn]:
    turns = []
    said: dict[int, list[Message]] = {}
    counts.update(turns_without_judgement=0, turns_without_gold=0, answers_without_text=0)
    for turn in asked:
        history = said.setdefault(turn.topic, [])
        grades = qrels.get(turn.qid)
        if grades is None:
            counts["turns_without_judgement"] += 1
        elif not any(grade > 0 for grade in grades.values()):
            counts["turns_without_gold"] += 1
        else:
            turns.append(
                Turn(
                    qid=turn.qid,
                    conv_id=str(turn.topic),
                    turn=turn.number,
                    split="test",
                    question=turn.question,
                    history=tuple(history),
                )
            )
        answer = texts.get(turn.answer_id, "") if turn.answer_id else turn.answer or ""
        counts["answers_without_text"] += not answer
        history += [Message(role="user", text=turn.question), Message(role="agent", text=answer)]
    if not turns:
        raise DataError("no turn of the topics has a relevant passage; check the judgements")
    return turns
