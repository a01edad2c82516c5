"""`convsearch data qa-sets|wiki18`: downloads of question sets for search agents."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.data_published import (
    AllowMismatch,
    Catalogue,
    DownloadOnly,
    Expect,
    Offline,
    OneIn,
    Out,
    Raw,
    Verify,
    bars,
    kept_of,
    show,
    tell,
)
from convsearch.data import download
from convsearch.data.pooled import SPLITS
from convsearch.data.qa_sets import RAW_SPLITS, convert_qa_sets, fetch_qa_sets, raw_files
from convsearch.data.raw_turns import RawSource
from convsearch.data.wiki18 import SET_NAME, convert_wiki18

_RAW = Path("data/raw/qa")


def qa_sets(
    out: Out,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help=f"One of {', '.join(RAW_SPLITS)}; repeated; all by default."),
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="train, dev or test; repeated; all by default."),
    ] = None,
    raw: Raw = None,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    offline: Offline = False,
    verify: Verify = False,
    download_only: DownloadOnly = False,
    catalogue: Catalogue = None,
) -> None:
    """Download and convert the seven question sets that papers on search agents report on."""
    names, chosen = sets or list(RAW_SPLITS), splits or list(SPLITS)
    kept = kept_of(0.0, 0, 1, expect, allow_count_mismatch)
    counts: dict[str, int] = {}
    fetched: list[download.Fetched] = []
    with bars() as on_progress:
        source = RawSource(
            folder=raw or _RAW, offline=offline, catalogue=catalogue, on_progress=on_progress
        )
        if verify:
            fetched = download.verify(raw_files(source, names, chosen), source.folder)
        elif download_only:
            fetched = list(fetch_qa_sets(source, names, chosen).values())
        else:
            counts = convert_qa_sets(source, out, kept, names=names, splits=chosen)
    _tell(out, counts, fetched)


def wiki18(
    out: Out,
    raw: Raw = None,
    keep_one_in: OneIn = 1,
    expect: Expect = None,
    allow_count_mismatch: AllowMismatch = False,
    offline: Offline = False,
    verify: Verify = False,
    download_only: DownloadOnly = False,
    catalogue: Catalogue = None,
) -> None:
    """Download and convert wiki-18, the 21 million passages that these questions are asked of."""
    kept = kept_of(0.0, 0, keep_one_in, expect, allow_count_mismatch)
    counts: dict[str, int] = {}
    fetched: list[download.Fetched] = []
    with bars() as on_progress:
        source = RawSource(
            folder=raw or _RAW, offline=offline, catalogue=catalogue, on_progress=on_progress
        )
        if verify:
            fetched = download.verify(source.known(SET_NAME).files, source.folder)
        elif download_only:
            fetched = list(source.files(SET_NAME).values())
        else:
            counts = convert_wiki18(source, out, kept)
    _tell(out, counts, fetched)


def _tell(out: Path, counts: dict[str, int], fetched: list[download.Fetched]) -> None:
    for each in fetched:
        tell(each)
    if counts:
        show(out, counts)
