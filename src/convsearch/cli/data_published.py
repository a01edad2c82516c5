"""`convsearch data topiocqa|topiocqa-pages|qrecc|cast|mtrag`: published data sets, from raw files
to a folder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from convsearch.data import download as d
from convsearch.data.cast import CastSettings, convert_cast
from convsearch.data.catalogue import RawFile
from convsearch.data.download import Fetched
from convsearch.data.mtrag import VALIDATION_SHARE, MtragSettings, convert_mtrag
from convsearch.data.mtrag_files import DOMAINS
from convsearch.data.published import parse_expected
from convsearch.data.qrecc import convert_qrecc, published_size_note
from convsearch.data.raw_turns import DEFAULT_VALIDATION_SHARE, Kept, RawSource
from convsearch.data.segments import Quoting
from convsearch.data.text_look import look_line
from convsearch.data.topiocqa import GoldChoice, convert_topiocqa
from convsearch.data.topiocqa_pages import PageSettings, convert_topiocqa_pages, raw_files
from convsearch.errors import ConfigError

Out = Annotated[Path, typer.Option(help="Folder of the data set to write.")]
Raw = Annotated[
    Path | None, typer.Option(help="Folder for the raw files; data/raw/<data set> by default.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Fetch nothing; name what is missing and where it goes.")
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read the raw files again, compare them, and stop.")
]
DownloadOnly = Annotated[
    bool, typer.Option("--download-only", help="Fetch and check the raw files, and stop.")
]
Catalogue = Annotated[
    Path | None, typer.Option(help="Another downloads.json, such as one with your own mirrors.")
]
Share = Annotated[
    float, typer.Option(help="Share of the training conversations held out as split dev.")
]
Seed = Annotated[int, typer.Option(help="Of the draw of the held-out conversations.")]
OneIn = Annotated[
    int,
    typer.Option(
        help="Keep every nth passage and the relevant ones; scores are not comparable then.", min=1
    ),
]
Expect = Annotated[
    list[str] | None,
    typer.Option(help="name=count: another count than the published one; may be repeated."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Make the output anew, if it was made with other settings."),
]
AllowMismatch = Annotated[
    bool,
    typer.Option("--allow-count-mismatch", help="Tell other counts than published, and go on."),
]


def topiocqa(
    out: Out,
    raw: Raw = None,
    gold: Annotated[
        GoldChoice, typer.Option(help="all: every positive passage. first: as the original.")
    ] = "all",
    tsv_quoting: Annotated[
        Quoting, typer.Option(help="Quotation marks of the passages' file; auto looks at it.")
    ] = "auto",
    validation_share: Share = DEFAULT_VALIDATION_SHARE,
    seed: Seed = 0,
    keep_one_in: OneIn = 1,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    offline: Offline = False,
    verify: Verify = False,
    download_only: DownloadOnly = False,
    catalogue: Catalogue = None,
    fresh: Fresh = False,
) -> None:
    """Download and convert TopiOCQA: 25.7 million passages, published dev data as split test."""
    kept = kept_of(validation_share, seed, keep_one_in, expect, allow_count_mismatch)
    flags = RawFlags(raw or Path("data/raw/topiocqa"), catalogue, offline, verify, download_only)
    from_raw(
        flags,
        out,
        of_sets("topiocqa"),
        lambda source: convert_topiocqa(
            source, out, kept, gold=gold, quoting=tsv_quoting, fresh=fresh
        ),
    )


def topiocqa_pages(
    out: Out,
    raw: Annotated[
        Path | None,
        typer.Option(help="Folder for the raw files; that of data topiocqa by default."),
    ] = None,
    others: Annotated[
        int, typer.Option(help="Passages of other pages in the corpus, drawn by --seed.", min=0)
    ] = PageSettings.others,
    pages: Annotated[
        int | None,
        typer.Option(
            help="Only the turns of so many pages, drawn by --seed; all by default.", min=1
        ),
    ] = None,
    tsv_quoting: Annotated[
        Quoting, typer.Option(help="Quotation marks of the passages' file; auto looks at it.")
    ] = "auto",
    validation_share: Share = DEFAULT_VALIDATION_SHARE,
    seed: Annotated[
        int, typer.Option(help="Of the held-out conversations, the pages and the other passages.")
    ] = 0,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    offline: Offline = False,
    verify: Verify = False,
    download_only: DownloadOnly = False,
    catalogue: Catalogue = None,
    fresh: Fresh = False,
) -> None:
    """TopiOCQA small enough for two cores: the pages of its turns and a sample of other passages.

    All passages of a turn's page are relevant. Reads the files of data topiocqa.
    """
    kept = kept_of(validation_share, seed, 1, expect, allow_count_mismatch)
    settings = PageSettings(others=others, pages=pages, quoting=tsv_quoting)
    from_raw(
        RawFlags(raw or Path("data/raw/topiocqa"), catalogue, offline, verify, download_only),
        out,
        raw_files,
        lambda source: convert_topiocqa_pages(source, out, kept, settings, fresh=fresh),
    )


def qrecc(
    out: Out,
    raw: Raw = None,
    validation_share: Share = DEFAULT_VALIDATION_SHARE,
    seed: Seed = 0,
    keep_one_in: OneIn = 1,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    offline: Offline = False,
    verify: Verify = False,
    download_only: DownloadOnly = False,
    catalogue: Catalogue = None,
    fresh: Fresh = False,
) -> None:
    """Download and convert QReCC: 54.6 million passages, human rewrites in files of their own."""
    kept = kept_of(validation_share, seed, keep_one_in, expect, allow_count_mismatch)
    flags = RawFlags(raw or Path("data/raw/qrecc"), catalogue, offline, verify, download_only)
    convert = partial(convert_qrecc, out=out, kept=kept, fresh=fresh)
    if counts := from_raw(flags, out, of_sets("qrecc"), convert):
        print(published_size_note(counts))


def cast(
    out: Out,
    year: Annotated[int, typer.Option(help="Year of the topics: 2019, 2020 or 2021.")],
    raw: Raw = None,
    with_corpus: Annotated[
        bool, typer.Option("--with-corpus", help="Fetch and convert the collection too.")
    ] = False,
    wapo: Annotated[
        Path | None, typer.Option(help="2021: your copy of the Washington Post collection v4.")
    ] = None,
    marco_duplicates: Annotated[
        Path | None, typer.Option(help="2019, 2020: the track's duplicate_list_v1.0.txt.")
    ] = None,
    allow_missing_gold: Annotated[
        bool,
        typer.Option("--allow-missing-gold", help="Drop and count judgements outside the corpus."),
    ] = False,
    keep_one_in: OneIn = 1,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    offline: Offline = False,
    verify: Verify = False,
    download_only: DownloadOnly = False,
    catalogue: Catalogue = None,
    fresh: Fresh = False,
) -> None:
    """Download and convert TREC CAsT topics and graded judgements of one year."""
    if year not in (2019, 2020, 2021):
        raise ConfigError(f"--year must be 2019, 2020 or 2021, got {year}")
    collection = "cast_documents" if year == 2021 else "cast_passages"
    settings = CastSettings(
        year=year,
        with_corpus=with_corpus,
        wapo=wapo,
        duplicates=marco_duplicates,
        allow_missing_gold=allow_missing_gold,
    )
    kept = kept_of(0.0, 0, keep_one_in, expect, allow_count_mismatch)
    counts = from_raw(
        RawFlags(raw or Path("data/raw/cast"), catalogue, offline, verify, download_only),
        out,
        of_sets(f"cast{year}", *([collection] if with_corpus else [])),
        partial(convert_cast, out=out, kept=kept, settings=settings, fresh=fresh),
    )
    if counts and not with_corpus:
        print(f"there is no corpus.jsonl in {out}; data/README.md says how to evaluate without one")


def mtrag(
    source: Annotated[Path, typer.Option(help="Checkout of IBM's repository mt-rag-benchmark.")],
    out: Out,
    domain: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(DOMAINS)}; may be repeated; all by default."),
    ] = None,
    others: Annotated[
        int | None,
        typer.Option(
            help="Passages beside the relevant ones, drawn by --seed; all by default.", min=0
        ),
    ] = None,
    test_share: Annotated[
        float, typer.Option(help="Share of MTRAG's conversations for split test; 1 for all.")
    ] = MtragSettings.test_share,
    validation_share: Annotated[
        float, typer.Option(help="Share of the conversations left by test for split dev.")
    ] = VALIDATION_SHARE,
    seed: Annotated[int, typer.Option(help="Of the splits and the other passages.")] = 0,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    fresh: Fresh = False,
) -> None:
    """Convert IBM's MTRAG and MTRAG-UN from their repository: 110 and 507 conversations in four
    domains, 366,459 passages, human rewrites in files of their own.
    """
    kept = kept_of(validation_share, seed, 1, expect, allow_count_mismatch)
    settings = MtragSettings(domains=tuple(domain or DOMAINS), others=others, test_share=test_share)
    with bars() as on_progress:
        counts = convert_mtrag(source, out, kept, settings, fresh=fresh, on_progress=on_progress)
    show(out, counts)


def show(out: Path, counts: dict[str, int]) -> None:
    """What is there now, and its counts, a line each."""
    print(f"{out}:")
    for key, count in counts.items():
        print(f"{key:28s} {count:>11,}")
    if line := look_line(counts):
        print(line)


@dataclass(frozen=True)
class RawFlags:
    """What the flags say about raw files."""

    folder: Path
    catalogue: Path | None
    offline: bool
    verify: bool
    download_only: bool


def of_sets(*names: str) -> Callable[[RawSource], list[RawFile]]:
    """The files of these sets of the catalogue."""
    return lambda source: [file for name in names for file in source.known(name).files]


def from_raw(
    flags: RawFlags,
    out: Path,
    files: Callable[[RawSource], Sequence[RawFile]],
    convert: Callable[[RawSource], dict[str, int]],
) -> dict[str, int]:
    """Converts, and says what came of it; or only checks or fetches `files`, as the flags ask.

    Returns the counts of a conversion, none without one.
    """
    fetched: list[Fetched] = []
    counts: dict[str, int] = {}
    with bars() as on_progress:
        source = RawSource(
            folder=flags.folder,
            offline=flags.offline,
            catalogue=flags.catalogue,
            on_progress=on_progress,
        )
        if flags.verify:
            fetched = d.verify(files(source), source.folder)
        elif flags.download_only:
            fetched = source.fetch(files(source))
        else:
            counts = convert(source)
    for each in fetched:
        tell(each)
    if counts:
        show(out, counts)
    return counts


def tell(each: Fetched) -> None:
    """One raw file, and how it was checked."""
    checked = {
        "published": "as published",
        "recorded": "as recorded at its first download",
        "first": f"not published anywhere; recorded in {d.LOCK_FILE} now",
    }[each.how]
    print(f"{each.path}: {each.size:,} bytes, sha256 {each.sha256}: {checked}")


def kept_of(
    share: float, seed: int, keep_one_in: int, expect: list[str] | None, allow_mismatch: bool
) -> Kept:
    """What the flags of the converters say."""
    return Kept(
        validation_share=share,
        seed=seed,
        keep_one_in=keep_one_in,
        expected=tuple(parse_expected(expect or []).items()),
        allow_count_mismatch=allow_mismatch,
    )


@contextmanager
def bars() -> Iterator[d.Progress]:
    """A bar for each file and for the corpus on stderr, and the function that moves them."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.fields[whole]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def move(name: str, done: int, total: int | None) -> None:
            whole = f"{total:,}" if total else "?"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, whole=whole)
            bars.update(tasks[name], completed=done, total=total, whole=whole)

        yield move
