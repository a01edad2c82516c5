"""MTRAG and MTRAG-UN (Katsis et al. 2025, Rosenthal et al. 2026): IBM's repository to a data set
folder. Relevance was labelled by people, passage by passage.

Both were published for evaluation only, so the splits are ours: whole conversations of MTRAG are
drawn for `test` and `dev`; MTRAG-UN, one turn of each conversation, is `train`. Some conversations
of MTRAG-UN go on from one of MTRAG: those whose first question a held-out one has are left out.
"""

import sys
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
from convsearch.data.page_sample import sample_pages
from convsearch.data.published import check_counts, check_early
from convsearch.data.raw_turns import Kept, count_turns, hold_out, write_human_rewrites
from convsearch.data.topics import pages_of_golds, topic_switches
from convsearch.data.transfer import Progress
from convsearch.errors import ConfigError, DataError
from convsearch.files import Qrels, write_qrels, write_turn_info, write_turns
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Turn

STAGE = "data mtrag"
REMEDY = "make a whole checkout of one version"
VALIDATION_SHARE = 0.2
"""Of the conversations that `test` leaves; a fifth of 66 is 13."""
NUM_TASKS = 842
"""Of MTRAG, all domains: the repository's README, as the passages below."""
NUM_PASSAGES = {"clapnq": 183_408, "cloud": 61_022, "fiqa": 49_607, "govt": 72_422}
NUM_TURNS = {"clapnq": 208, "cloud": 188, "fiqa": 180, "govt": 201}
"""Tasks of MTRAG with a relevant passage: counted in the repository at commit cc5b1d4; the paper
has the sum, 777."""
NUM_UN_TURNS = {"clapnq": 83, "cloud": 86, "fiqa": 58, "govt": 105}
"""The same of MTRAG-UN."""


@dataclass(frozen=True, kw_only=True)
class MtragSettings:
    """How much of MTRAG is taken."""

    domains: tuple[str, ...] = DOMAINS
    """Some of the four."""
    others: int | None = None
    """Passages beside the relevant ones, drawn by the seed; None takes all."""
    test_share: float = 0.4
    """Share of the conversations of MTRAG that become the split `test`; 1 leaves no `dev`."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.domains) - set(DOMAINS))
        if unknown or not self.domains:
            raise ConfigError(
                f"--domain takes {', '.join(DOMAINS)}, got {', '.join(unknown) or 'none'}"
            )
        if self.others is not None and self.others < 0:
            raise ConfigError(f"--others must be 0 or more, got {self.others}")
        if not 0 < self.test_share <= 1:
            raise ConfigError(f"--test-share must be above 0 and at most 1, got {self.test_share}")

    @property
    def chosen(self) -> list[str]:
        """The domains, each once, in an order of their own."""
        return [domain for domain in DOMAINS if domain in self.domains]

    @property
    def name(self) -> str:
        """The data set's: tells a part from the whole."""
        domains = self.chosen if len(self.chosen) < len(DOMAINS) else []
        return "_".join(["mtrag", *domains, *(["sample"] if self.others is not None else [])])

    @property
    def published(self) -> dict[str, int]:
        """What the counts should be."""
        return {
            "num_mtrag_tasks": NUM_TASKS,
            "num_mtrag_turns": sum(NUM_TURNS[domain] for domain in self.chosen),
            "num_mtragun_turns": sum(NUM_UN_TURNS[domain] for domain in self.chosen),
            "num_passages_read": sum(NUM_PASSAGES[domain] for domain in self.chosen),
        }


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

    The passages are read twice, as in `data topiocqa-pages`. Tasks without a relevant passage in
    the chosen domains are left out; they stay in the histories of later turns. `kept.seed` draws
    the conversations of `test` and `dev` and the other passages; `kept.keep_one_in` is not used.
    Human rewrites of `dev` and `test` stand in files of their own.
    Raises DataError, MissingFileError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    files = find_mtrag_files(source, settings.chosen)
    made_of = {
        "name": settings.name,
        "domains": settings.chosen,
        "others": settings.others,
        "test_share": settings.test_share,
        "validation_share": kept.validation_share,
        "seed": kept.seed,
        "raw_files": {path.relative_to(source).as_posix(): sha256_of(path) for path in files.all()},
    }
    output = folder_output(out, STAGE, made_of, sources=files.all())
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter()
    with prepared_folder(out, made_of) as folder:
        turns, golds = _turns(files, settings, kept, counts)
        if not kept.allow_count_mismatch:
            check_early(counts, settings.published, dict(kept.expected), remedy=REMEDY)
        wanted = {doc_id: turn.qid for turn in turns for doc_id in golds[turn.qid]}
        titles: dict[str, str] = {}

        def watched() -> Iterator[RawPassage]:
            for raw in read_corpora(files.corpora):
                if raw.raw_id in wanted:
                    titles[raw.raw_id] = raw.passage.title
                yield raw

        sample = sample_pages(
            watched(),
            wanted,
            others=sys.maxsize if settings.others is None else settings.others,
            seed=kept.seed,
            on_progress=on_progress,
        )
        report = make_corpus(
            folder,
            lambda: sample.chosen(read_corpora(files.corpora)),
            wanted=wanted.keys(),
            on_progress=on_progress,
        )
        check_found(wanted, report)
        count_turns(turns, counts)
        counts["num_passages"] = report.num_passages
        counts["num_passages_read"] = sample.num_read
        counts["num_blank_passages"] = report.num_blank
        counts["human_rewrites"] = write_human_rewrites(
            folder, turns, read_human_rewrites(files.rewrites)
        )
        counts["count_mismatches"] = len(
            check_counts(
                counts,
                settings.published,
                dict(kept.expected),
                allow_mismatch=kept.allow_count_mismatch,
                remedy=REMEDY,
            )
        )
        qrels: Qrels = {turn.qid: dict.fromkeys(golds[turn.qid], 1) for turn in turns}
        write_turns(folder / TURNS, turns)
        write_qrels(folder / QRELS, qrels)
        switches = topic_switches(turns, pages_of_golds(qrels, titles))
        write_turn_info(folder / TURN_INFO, switches)
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings=made_of,
            counts=counts,
            seed=kept.seed,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _turns(
    files: MtragFiles, settings: MtragSettings, kept: Kept, counts: Counter[str]
) -> tuple[list[Turn], dict[str, list[str]]]:
    """Turns that have a relevant passage, their splits drawn, and the ids of these by qid."""
    golds, un_golds = read_golds(files.qrels), read_golds(files.un_qrels)
    split = "test" if settings.test_share == 1 else "train"
    tasks = _tasks(files.tasks, split, counts)
    un_tasks = _tasks(files.un_tasks, "train", counts)
    both = sorted(tasks.keys() & un_tasks.keys())
    if both:
        raise DataError(f"{files.un_tasks}: task {both[0]!r} is also in {files.tasks}")
    turns = _judged(files.tasks, tasks, golds)
    turns = hold_out(turns, share=settings.test_share, seed=kept.seed, split="test")
    turns = hold_out(turns, share=kept.validation_share, seed=kept.seed)
    held = {turn.conv_id for turn in turns if turn.split != "train"}
    openings = {_opening(turn) for turn in tasks.values() if turn.conv_id in held}
    un_turns = _judged(files.un_tasks, un_tasks, un_golds)
    taken = [turn for turn in un_turns if _opening(turn) not in openings]
    counts["num_mtrag_tasks"], counts["num_mtragun_tasks"] = len(tasks), len(un_tasks)
    counts["num_mtrag_turns"], counts["num_mtragun_turns"] = len(turns), len(un_turns)
    counts["turns_opening_as_held_out"] = len(un_turns) - len(taken)
    return [*turns, *taken], golds | un_golds


def _tasks(path: Path, split: str, counts: Counter[str]) -> dict[str, Turn]:
    """All tasks by qid. Raises DataError where one occurs twice."""
    turns: dict[str, Turn] = {}
    for where, turn in read_tasks(path, split, counts):
        if turn.qid in turns:
            raise DataError(f"{where}: task {turn.qid!r} occurs twice")
        turns[turn.qid] = turn
    return turns


def _judged(path: Path, tasks: dict[str, Turn], golds: dict[str, list[str]]) -> list[Turn]:
    """The tasks that have a relevant passage. Raises DataError where one of `golds` is no task."""
    for qid in golds:
        if qid not in tasks:
            raise DataError(
                f"{path}: task {qid!r} is judged, but not there; make a whole checkout of one "
                "version of the repository"
            )
    return [turn for qid, turn in tasks.items() if qid in golds]


def _opening(turn: Turn) -> str:
    """The first question of the conversation, without case, spacing and end marks."""
    first = turn.history[0].text if turn.history else turn.question
    return " ".join(first.lower().split()).rstrip(" ?.!")
