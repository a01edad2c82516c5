"""A data set whose corpus takes long to write: finished steps outlive a kill.

Everything is made in `<out>.partial` and moves to `out` at the end. A corpus that is complete there
is used again by the next call with the same settings; one that is not is written anew.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from convsearch.data.dataset import CORPUS, PASSPORT, QRELS, TURN_INFO, TURNS
from convsearch.data.holding import LOCK, disk_errors_named, held
from convsearch.data.text_look import TextLook
from convsearch.data.transfer import Progress
from convsearch.errors import DataError
from convsearch.files import atomic_write
from convsearch.passages import unique, write_passages
from convsearch.types import Passage

_log = logging.getLogger(__name__)
_PROGRESS_EVERY = 10_000
JOB, DONE = ".job.json", ".corpus.done.json"
OWNED_FILES = (
    CORPUS,
    TURNS,
    QRELS,
    PASSPORT,
    TURN_INFO,
    "gold_ids.tsv",
    "human_rewrites.jsonl",
    "human_rewrites.dev.jsonl",
)
"""What converters may write into a data set folder."""


@dataclass(frozen=True, kw_only=True)
class RawPassage:
    """A passage and the id that raw files call it by."""

    raw_id: str
    passage: Passage
    where: str
    """`file:line`, or as near as the file's form allows."""
    page: str = ""
    """What a draw takes as one: the title of the page that the passage is a part of, or its own id
    where each is judged by itself."""


@dataclass(kw_only=True)
class CorpusReport:
    """What a pass over the corpus found."""

    num_passages: int = 0
    """Written."""
    num_read: int = 0
    """Read; more than written where only a part is kept."""
    num_blank: int = 0
    """Without any text; written all the same, as the published counts include them."""
    num_html: int = 0
    """That look like HTML; counted, like the next, only where it was asked for."""
    num_repeated: int = 0
    """Texts that more than one passage has."""
    found: dict[str, list[str]] = field(default_factory=dict)
    """Wanted raw id -> ids of the passages that bear it, in the order of the corpus."""
    texts: dict[str, str] = field(default_factory=dict)
    """Raw id -> text, for those whose text was asked for."""


@contextmanager
def prepared_folder(out: Path, job: Mapping[str, object]) -> Iterator[Path]:
    """Yields `<out>.partial`; its files move to `out` when the block ends without an error.

    job: what the corpus depends on. A corpus of another job is removed. After an error a finished
    corpus stays for the next call, anything else is removed. Files of a data set that an earlier
    conversion left in `out`, and this one does not make, are removed; foreign files stay. Raises
    ConfigError where another process is at work, DataError where `out` is a file or the disk is
    full.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder; name another output folder")
    folder = out.with_name(f"{out.name}.partial")
    with disk_errors_named(folder), held(folder):
        wanted = json.dumps(job, sort_keys=True, default=str)
        job_path = folder / JOB
        if not job_path.is_file() or job_path.read_text(encoding="utf-8") != wanted:
            _clear(folder, keep={LOCK})
        _clear(folder, keep={LOCK, JOB, DONE, CORPUS})
        with atomic_write(job_path) as text:
            text.write(wanted)
        try:
            yield folder
        except BaseException:
            if (folder / DONE).is_file():
                _log.warning("%s keeps the finished corpus for the same call again", folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        _move(folder, out)


def _move(folder: Path, out: Path) -> None:
    """Gives the finished files their place: the whole folder at once where `out` is new."""
    if not out.exists():
        for note in (JOB, DONE, LOCK):
            (folder / note).unlink(missing_ok=True)
        folder.rename(out)
        return
    made = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    for name in OWNED_FILES:
        for stale in {name, f"{name}.gz"} - made:
            (out / stale).unlink(missing_ok=True)
    for name in sorted(made):
        (folder / name).replace(out / name)
    shutil.rmtree(folder)


def make_corpus(
    folder: Path,
    read: Callable[[], Iterable[RawPassage]],
    *,
    wanted: Set[str],
    with_text: Set[str] = frozenset(),
    keep_one_in: int = 1,
    ids_are_numbers: bool = False,
    look: bool = False,
    on_progress: Progress | None = None,
) -> CorpusReport:
    """Writes `corpus.jsonl`, or finds it complete from an earlier call. Of the corpus only wanted
    ids are remembered, and eight bytes for each other one, by which repeated ones are found.

    read: all passages, from the beginning by each call. wanted: raw ids to look out for.
    with_text: those of them whose text is needed. keep_one_in: writes every nth passage, and the
    wanted ones in any case. ids_are_numbers: each passage's id is its number, so that none can
    repeat. look: count HTML and repeated texts, which takes eight bytes a passage. on_progress:
    hears how many passages were read. Raises DataError where there are none,
    and where an id occurs twice.
    """
    done, corpus = folder / DONE, folder / CORPUS
    if done.is_file() and corpus.is_file():
        record = json.loads(done.read_text(encoding="utf-8"))
        if record.pop("bytes") == corpus.stat().st_size:
            return CorpusReport(**record)
    done.unlink(missing_ok=True)
    report = CorpusReport()
    passages = _told(read(), on_progress)
    if not ids_are_numbers:
        passages = unique(
            passages,
            lambda raw: raw.passage.doc_id,
            lambda: ((raw.where, raw.passage.doc_id) for raw in read()),
        )
    written = _watched(passages, report, wanted, with_text, keep_one_in)
    texts = TextLook()
    report.num_passages = write_passages(corpus, texts.watch(written) if look else written)
    report.num_html, report.num_repeated = texts.num_html, texts.num_repeated
    if not report.num_passages:
        corpus.unlink()
        raise DataError("the corpus holds no passage; check the file it was read from")
    with atomic_write(done) as out:
        json.dump({**asdict(report), "bytes": corpus.stat().st_size}, out)
    return report


def check_found(wanted: Mapping[str, str], report: CorpusReport) -> None:
    """wanted: raw id -> a turn that needs it. Raises DataError where the corpus lacks one."""
    missing = [raw_id for raw_id in wanted if raw_id not in report.found]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(wanted):,} relevant passages are not in the corpus, first "
            f"{missing[0]!r} of turn {wanted[missing[0]]!r}; check that the "
            "files are whole and belong together"
        )


def _told(passages: Iterable[RawPassage], on_progress: Progress | None) -> Iterator[RawPassage]:
    for number, raw in enumerate(passages, 1):
        if on_progress and number % _PROGRESS_EVERY == 0:
            on_progress("passages read", number, None)
        yield raw


def _watched(
    passages: Iterable[RawPassage],
    report: CorpusReport,
    wanted: Set[str],
    with_text: Set[str],
    keep_one_in: int,
) -> Iterator[Passage]:
    for number, raw in enumerate(passages):
        report.num_read += 1
        passage = raw.passage
        is_wanted = raw.raw_id in wanted
        if is_wanted:
            report.found.setdefault(raw.raw_id, []).append(passage.doc_id)
            if raw.raw_id in with_text:
                report.texts[raw.raw_id] = passage.text
        if is_wanted or number % keep_one_in == 0:
            report.num_blank += not passage.text.strip()
            yield passage


def _clear(folder: Path, *, keep: Set[str]) -> None:
    for child in folder.iterdir():
        if child.name in keep:
            continue
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
