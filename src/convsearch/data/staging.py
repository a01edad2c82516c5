"""All files of a folder appear together, or none of them."""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import DataError


@contextmanager
def staged_folder(out: Path, *, owned: Collection[str] = ()) -> Iterator[Path]:
    """Yields an empty folder; its files move to `out` when the block ends without an error.

    Files of the same names in `out` are replaced, others stay. owned: names that are removed there
    where the new content has none of them. After an error `out` is as it was.
    Raises DataError where `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder; name another output folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield staging
        out.mkdir(exist_ok=True)
        for stale in set(owned) - {made.name for made in staging.iterdir()}:
            (out / stale).unlink(missing_ok=True)
        for made in sorted(staging.iterdir()):
            made.replace(out / made.name)
    finally:
        shutil.rmtree(staging)
