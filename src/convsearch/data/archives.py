"""Archives that somebody else made: read as streams, never unpacked, within bounds.

A few kilobytes can unpack to more than any memory holds, an entry can be a link or be locked with a
password, and an archive can end in the middle.
"""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from convsearch.errors import DataError

MAX_LINE_BYTES = 64 * 1024**2
"""The longest passage of the published corpora is a hundredth of it."""
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,  # also what gzip says of an archive that was cut off
    NotImplementedError,  # zipfile's word for a compression that it does not have
    OverflowError,
)
"""What the readers of archives raise for bytes that are none, or only half of one."""


@contextmanager
def archive_errors(path: Path) -> Iterator[None]:
    """Turns what is wrong with an archive that the block reads into a DataError with its name."""
    try:
        yield
    except DAMAGED as error:
        raise DataError(f"{path}: damaged archive ({error}); remove it to fetch it again") from None
    except RuntimeError as error:  # zipfile's word for an entry that needs a password
        if "encrypted" not in str(error):
            raise
        raise DataError(f"{path}: {error}; fetch the archive that is published") from None


def bounded_lines(stream: IO[bytes] | gzip.GzipFile, where: str) -> Iterator[bytes]:
    """The lines of a stream. Raises DataError for one that is longer than any text here."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise DataError(
                f"{where}:{number}: a line of more than {MAX_LINE_BYTES // 1024**2} MB, which no "
                "passage has; fetch the file that is published"
            )
        yield line
