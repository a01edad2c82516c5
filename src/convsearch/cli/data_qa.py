"""`convsearch data qa-sets|wiki18`: downloads of question sets for search agents."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.data_published import (
    AllowMismatch,
    Catalogue,
    DownloadOnly,
    Expect,
    Fresh,
    Offline,
    OneIn,
    Out,
    Raw,
    RawFlags,
    Verify,
    from_raw,
    kept_of,
    of_sets,
)
from convsearch.data.pooled import SPLITS
from convsearch.data.qa_sets import RAW_SPLITS, convert_qa_sets, raw_files
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
    fresh: Fresh = False,
) -> None:
    """Download and convert the seven question sets that papers on search agents report on."""
    names, chosen = sets or list(RAW_SPLITS), splits or list(SPLITS)
    kept = kept_of(0.0, 0, 1, expect, allow_count_mismatch)
    from_raw(
        RawFlags(raw or _RAW, catalogue, offline, verify, download_only),
        out,
        lambda source: raw_files(source, names, chosen),
        lambda source: convert_qa_sets(source, out, kept, names=names, splits=chosen, fresh=fresh),
    )


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
    fresh: Fresh = False,
) -> None:
    """Download and convert wiki-18, the 21 million passages that these questions are asked of."""
    kept = kept_of(0.0, 0, keep_one_in, expect, allow_count_mismatch)
    from_raw(
        RawFlags(raw or _RAW, catalogue, offline, verify, download_only),
        out,
        of_sets(SET_NAME),
        lambda source: convert_wiki18(source, out, kept, fresh=fresh),
    )
