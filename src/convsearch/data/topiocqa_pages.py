"""TopiOCQA over whole pages: all passages of a turn's Wikipedia page are relevant, and the corpus
is these pages and a sample of other passages. Small enough for two cores; the scores compare with
nothing that was measured over all 25,700,592 passages.

Made of three of the files of `data topiocqa`: the conversations, whose `Topic` is the title of the
turn's page, and `full_wiki_segments.tsv`, whose titles begin with the page's.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convsearch.data.catalogue import RawFile
from convsearch.data.corpus_job import RawPassage, make_corpus, prepared_folder
from convsearch.data.dataset import PASSPORT, QRELS, TURN_INFO, TURNS
from convsearch.data.outputs import folder_output
from convsearch.data.page_sample import draw_of, sample_pages
from convsearch.data.published import check_counts, check_early
from convsearch.data.raw_turns import Kept, RawSource, count_turns, hold_out
from convsearch.data.segments import Quoting, read_segments
from convsearch.data.topiocqa_turns import (
    PUBLISHED_PASSAGES,
    PUBLISHED_TURNS,
    SET_NAME,
    SPLIT_OF,
    read_topic_turns,
    switches_by_topic,
)
from convsearch.errors import ConfigError, DataError
from convsearch.files import Qrels, write_qrels, write_turn_info, write_turns
from convsearch.passport import write_passport
from convsearch.types import Turn

STAGE = "data topiocqa-pages"
NAME = "topiocqa-pages"
SEGMENTS = "full_wiki_segments.tsv"
PUBLISHED = {**PUBLISHED_TURNS, "num_passages_read": PUBLISHED_PASSAGES}


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """How much of TopiOCQA is taken."""

    others: int = 30_000
    """Passages of other pages, drawn by the seed."""
    pages: int | None = None
    """Pages whose turns are taken, drawn by the seed; None takes all."""
    quoting: Quoting = "auto"
    """Quotation marks of the passages' file."""

    def __post_init__(self) -> None:
        if self.others < 0:
            raise ConfigError(f"--others must be 0 or more, got {self.others}")
        if self.pages is not None and self.pages < 1:
            raise ConfigError(f"--pages must be 1 or more, got {self.pages}")


def raw_files(source: RawSource) -> list[RawFile]:
    """What has to be there: the set of `data topiocqa` without its relevant passages."""
    wanted = {*(f"topiocqa_{split}.json" for split in SPLIT_OF), SEGMENTS}
    return [file for file in source.known(SET_NAME).files if file.name in wanted]


def convert_topiocqa_pages(
    source: RawSource,
    out: Path,
    kept: Kept,
    settings: PageSettings,
    *,
    fresh: bool = False,
) -> dict[str, int]:
    """Writes `out` and returns the counts, which are also in its passport.

    The passages are read twice: once to find those of the pages and to draw the others, once to
    write them, in the file's order. Turns of pages that are not drawn, or have no passage, are left
    out and counted; they stay in the histories of later turns. `kept.seed` draws the dev
    conversations, the pages and the other passages; `kept.keep_one_in` is not used.
    Raises DataError, MissingFileError, DownloadError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    files = {file.name: file for file in source.fetch(raw_files(source))}
    job = {
        "name": NAME if settings.pages is None else f"{NAME}-{settings.pages}",
        "others": settings.others,
        "pages": settings.pages,
        "quoting": settings.quoting,
        "seed": kept.seed,
        "raw_files": {name: each.sha256 for name, each in files.items()},
    }
    output = folder_output(out, STAGE, {**job, "validation_share": kept.validation_share})
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter(added_agent_messages=0)
    with prepared_folder(out, job) as folder:
        turns: list[Turn] = []
        topics: dict[str, str] = {}
        for raw_split, split in SPLIT_OF.items():
            read = list(
                read_topic_turns(files[f"topiocqa_{raw_split}.json"].path, raw_split, counts)
            )
            turns += [each.turn for each in read]
            topics |= {each.turn.qid: each.topic for each in read}
            counts[f"num_raw_{split}_turns"] = len(read)
            counts[f"num_raw_{split}_conversations"] = len({each.turn.conv_id for each in read})
        if not kept.allow_count_mismatch:
            check_early(counts, PUBLISHED, dict(kept.expected))
        turns = hold_out(turns, share=kept.validation_share, seed=kept.seed)
        drawn = _drawn_pages(set(topics.values()) - {""}, settings.pages, kept.seed)

        def passages() -> Iterator[RawPassage]:
            return read_segments(files[SEGMENTS].path, settings.quoting)

        sample = sample_pages(
            passages(),
            drawn,
            others=settings.others,
            seed=kept.seed,
            on_progress=source.on_progress,
        )
        report = make_corpus(
            folder,
            lambda: sample.chosen(passages()),
            wanted=frozenset(),
            on_progress=source.on_progress,
        )
        judged = {page: dict.fromkeys(ids, 1) for page, ids in sample.passages_of.items()}
        found = [turn for turn in turns if topics[turn.qid] in judged]
        if not found:
            raise DataError(
                f"{files[SEGMENTS].path}: no passage of the page of any turn; check that the files "
                "belong together, and that titles begin with the page's"
            )
        counts["turns_of_pages_not_drawn"] = sum(
            bool(topic) and topic not in drawn for topic in topics.values()
        )
        counts["turns_without_page"] = len(turns) - len(found) - counts["turns_of_pages_not_drawn"]
        count_turns(found, counts)
        counts["num_pages"] = len(judged)
        counts["num_page_passages"] = sum(map(len, judged.values()))
        counts["num_passages"] = report.num_passages
        counts["num_passages_read"] = sample.num_read
        counts["num_blank_passages"] = report.num_blank
        counts["count_mismatches"] = len(
            check_counts(
                counts,
                PUBLISHED,
                dict(kept.expected),
                allow_mismatch=kept.allow_count_mismatch,
            )
        )
        qrels: Qrels = {turn.qid: judged[topics[turn.qid]] for turn in found}
        write_turns(folder / TURNS, found)
        write_qrels(folder / QRELS, qrels)
        write_turn_info(folder / TURN_INFO, switches_by_topic(found, topics))
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


def _drawn_pages(pages: set[str], number: int | None, seed: int) -> set[str]:
    """All pages, or `number` of them; a larger draw of the same seed holds every smaller one."""
    if number is None or number >= len(pages):
        return pages
    return set(sorted(pages, key=lambda page: (draw_of(page, seed), page))[:number])
