"""`convsearch data topiocqa|qrecc|cast`: published data sets, from their raw files to a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from convsearch.data import download as d
from convsearch.data.cast import CastSettings, convert_cast
from convsearch.data.catalogue import RawFile, load_catalogue, raw_set
from convsearch.data.download import Fetched
from convsearch.data.published import parse_expected
from convsearch.data.qrecc import convert_qrecc, published_size_note
from convsearch.data.raw_turns import DEFAULT_VALIDATION_SHARE, Kept, RawSource
from convsearch.data.segments import Quoting
from convsearch.data.topiocqa import GoldChoice, convert_topiocqa
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
) -> None:
    """Download and convert TopiOCQA: 25.7 million passages, published dev data as split test."""
    folder = raw or Path("data/raw/topiocqa")
    if _only_raw(["topiocqa"], folder, catalogue, verify, download_only, offline):
        return
    kept = kept_of(validation_share, seed, keep_one_in, expect, allow_count_mismatch)
    with bars() as on_progress:
        source = RawSource(
            folder=folder, offline=offline, catalogue=catalogue, on_progress=on_progress
        )
        counts = convert_topiocqa(source, out, kept, gold=gold, quoting=tsv_quoting)
    show(out, counts)


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
) -> None:
    """Download and convert QReCC: 54.6 million passages, human rewrites in files of their own."""
    folder = raw or Path("data/raw/qrecc")
    if _only_raw(["qrecc"], folder, catalogue, verify, download_only, offline):
        return
    kept = kept_of(validation_share, seed, keep_one_in, expect, allow_count_mismatch)
    with bars() as on_progress:
        source = RawSource(
            folder=folder, offline=offline, catalogue=catalogue, on_progress=on_progress
        )
        counts = convert_qrecc(source, out, kept)
    show(out, counts)
    print(published_size_note(counts))


def cast(
    out: Out,
    year: Annotated[int, typer.Option(help="2019, 2020 or 2021.")],
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
) -> None:
    """Download and convert TREC CAsT topics and graded judgements of one year."""
    if year not in (2019, 2020, 2021):
        raise ConfigError(f"--year must be 2019, 2020 or 2021, got {year}")
    folder = raw or Path("data/raw/cast")
    collection = "cast_documents" if year == 2021 else "cast_passages"
    sets = [f"cast{year}", *([collection] if with_corpus else [])]
    if _only_raw(sets, folder, catalogue, verify, download_only, offline):
        return
    settings = CastSettings(
        year=year,
        with_corpus=with_corpus,
        wapo=wapo,
        duplicates=marco_duplicates,
        allow_missing_gold=allow_missing_gold,
    )
    kept = kept_of(0.0, 0, keep_one_in, expect, allow_count_mismatch)
    with bars() as on_progress:
        source = RawSource(
            folder=folder, offline=offline, catalogue=catalogue, on_progress=on_progress
        )
        counts = convert_cast(source, out, kept, settings)
    show(out, counts)
    if not with_corpus:
        print(f"there is no corpus.jsonl in {out}; data/README.md says how to evaluate without one")


def show(out: Path, counts: dict[str, int]) -> None:
    """What was written, and its counts, a line each."""
    print(f"wrote {out}")
    for key, count in counts.items():
        print(f"{key:28s} {count:>11,}")


def _only_raw(
    sets: list[str],
    folder: Path,
    catalogue: Path | None,
    verify: bool,
    download_only: bool,
    offline: bool,
) -> bool:
    """Does what --verify and --download-only ask for; False where neither was given."""
    if not verify and not download_only:
        return False
    known = load_catalogue(catalogue)
    files: list[RawFile] = [file for name in sets for file in raw_set(known, name).files]
    if verify:
        fetched = d.verify(files, folder)
    else:
        with bars() as on_progress:
            fetched = d.fetch(files, folder, offline=offline, on_progress=on_progress)
    for each in fetched:
        tell(each)
    return True


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
