"""MTRAG and MTRAG-UN (Katsis et al. 2025, Rosenthal et al. 2026): IBM's repository to a data set
folder. Relevance was labelled by people, passage by passage.

Both were published for evaluation only, so the splits are ours: whole conversations of MTRAG are
drawn for `test` and `dev`; MTRAG-UN, one turn of each conversation, is all `train`.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convsearch.data.corpus_job import RawPassage, check_found, make_corpus, prepared_folder
from convsearch.data.dataset import PASSPORT, QRELS, TURN_INFO, TURNS
from convsearch.data.mtrag_files import (
    DOMAINS,
    MtragFiles,
    find_mtrag_files,
    read_corpora,
    read_golds,
    read_human_rewrites,
    read_tasks,
)
from convsearch.data.outputs import folder_output
from convsearch.data.published import check_counts, check_early
from convsearch.data.raw_turns import Kept, count_turns, hold_out, write_human_rewrites
from convsearch.data.topics import pages_of_golds, topic_switches
from convsearch.data.transfer import Progress
from convsearch.errors import ConfigError, DataError
from convsearch.files import Qrels, write_qrels, write_turn_info, write_turns
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Turn

STAGE = "data mtrag"
NAME = "mtrag"
TURNS_OF = {"clapnq": 208, "cloud": 188, "fiqa": 180, "govt": 201}
"""Judged turns of MTRAG, by domain: counted in the repository at commit cc5b1d4."""
UN_TURNS_OF = {"clapnq": 83, "cloud": 86, "fiqa": 58, "govt": 105}
"""The same of MTRAG-UN."""
PASSAGES_OF = {"clapnq": 183_408, "cloud": 61_022, "fiqa": 49_607, "govt": 72_422}
"""The repository's README."""


@dataclass(frozen=True, kw_only=True)
class MtragSettings:
    """How much of MTRAG is taken."""

    domains: tuple[str, ...] = DOMAINS
    """Of the four."""
    with_un: bool = True
    """MTRAG-UN too, as training turns."""
    test_share: float = 0.4
    """Share of the conversations of MTRAG that become the split `test`."""

    def __post_init__(self) -> None:
        unknown = set(self.domains) - set(DOMAINS)
        if unknown or not self.domains or len(set(self.domains)) < len(self.domains):
            raise ConfigError(
                f"--domain takes each of {', '.join(DOMAINS)} once, got {', '.join(self.domains)}"
            )
        if not 0 <= self.test_share < 1:
            raise ConfigError(f"--test-share must be 0 or more and below 1, got {self.test_share}")


def convert_mtrag(
    source: Path,
    out: Path,
    kept: Kept,
    settings: MtragSettings,
    *,
    fresh: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, int]:
    """Writes `out` from a checkout of the repository; returns the counts, as in its passport.

    Tasks without a relevant passage are left out and counted. `kept.validation_share` is of the
    conversations that `test` leaves. Human rewrites of `dev` and `test` stand in files of their
    own, for comparison. Raises DataError, MissingFileError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    files = find_mtrag_files(source, settings.domains, with_un=settings.with_un)
    job = {
        "name": NAME if kept.keep_one_in == 1 else f"{NAME}-1in{kept.keep_one_in}",
        "domains": list(settings.domains),
        "with_un": settings.with_un,
        "keep_one_in": kept.keep_one_in,
        "raw_files": {str(path.relative_to(source)): sha256_of(path) for path in files.all()},
    }
    draw = {
        "validation_share": kept.validation_share,
        "test_share": settings.test_share,
        "seed": kept.seed,
    }
    output = folder_output(out, STAGE, {**job, **draw}, sources=files.all())
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter(turns_without_gold=0)
    published = _published(settings)
    with prepared_folder(out, job) as folder:
        turns, golds = _turns(files, settings, kept, counts)
        if not kept.allow_count_mismatch:
            check_early(counts, published, dict(kept.expected))
        wanted = {doc_id: qid for qid, ids in golds.items() for doc_id in ids}
        titles: dict[str, str] = {}

        def passages() -> Iterator[RawPassage]:
            for raw in read_corpora(files.corpora):
                if raw.raw_id in wanted:
                    titles[raw.raw_id] = raw.passage.title
                yield raw

        report = make_corpus(
            folder,
            passages,
            wanted=wanted.keys(),
            keep_one_in=kept.keep_one_in,
            on_progress=on_progress,
        )
        check_found(wanted, report)
        if titles.keys() != wanted.keys():  # the corpus was there from a run that was killed
            for _ in passages():
                pass
        count_turns(turns, counts)
        counts["num_passages"] = report.num_passages
        counts["num_passages_read"] = report.num_read
        counts["num_blank_passages"] = report.num_blank
        counts["human_rewrites"] = write_human_rewrites(
            folder, turns, read_human_rewrites(files.rewrites)
        )
        counts["count_mismatches"] = len(
            check_counts(
                counts,
                published,
                dict(kept.expected),
                allow_mismatch=kept.allow_count_mismatch,
            )
        )
        qrels: Qrels = {turn.qid: dict.fromkeys(golds[turn.qid], 1) for turn in turns}
        write_turns(folder / TURNS, turns)
        write_qrels(folder / QRELS, qrels)
        write_turn_info(folder / TURN_INFO, topic_switches(turns, pages_of_golds(qrels, titles)))
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings={**job, **draw},
            counts=counts,
            seed=kept.seed,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _published(settings: MtragSettings) -> dict[str, int]:
    """What the counts of the chosen domains should be."""
    un_turns = sum(UN_TURNS_OF[domain] for domain in settings.domains)
    return {
        "num_mtrag_turns": sum(TURNS_OF[domain] for domain in settings.domains),
        "num_mtragun_turns": un_turns if settings.with_un else 0,
        "num_passages_read": sum(PASSAGES_OF[domain] for domain in settings.domains),
    }


def _turns(
    files: MtragFiles, settings: MtragSettings, kept: Kept, counts: Counter[str]
) -> tuple[list[Turn], dict[str, list[str]]]:
    """Turns that have a relevant passage, their splits drawn, and the ids of these by qid."""
    golds = read_golds(files.qrels)
    turns = _judged(files.tasks, golds, counts)
    counts["num_mtrag_turns"] = len(turns)
    turns = hold_out(turns, share=settings.test_share, seed=kept.seed, split="test")
    turns = hold_out(turns, share=kept.validation_share, seed=kept.seed)
    un_golds = read_golds(files.un_qrels)
    un_turns = _judged(files.un_tasks, un_golds, counts) if files.un_tasks else []
    counts["num_mtragun_turns"] = len(un_turns)
    for qid in golds.keys() & un_golds.keys():
        raise DataError(f"{files.un_tasks}: task {qid!r} is also in {files.tasks}")
    return [*turns, *un_turns], golds | un_golds


def _judged(path: Path, golds: dict[str, list[str]], counts: Counter[str]) -> list[Turn]:
    """The tasks that have a relevant passage; those of other domains and those that nothing answers
    are counted. Raises DataError where one of `golds` is no task."""
    turns = read_tasks(path, counts)
    for qid in golds:
        if qid not in turns:
            raise DataError(
                f"{path}: task {qid!r} is judged, but not there; make a whole checkout of one "
                "version of the repository"
            )
    counts["turns_without_gold"] += sum(qid not in golds for qid in turns)
    return [turn for qid, turn in turns.items() if qid in golds]
