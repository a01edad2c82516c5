"""What the doors share: the scripts of the original by their old names and flags.

File formats are ours: `turns.jsonl` and `rewrites.jsonl` (also `.gz`), qrels as `qid 0 doc_id rel`,
index folders of `convsearch index`.
"""

import argparse
import errno
import logging
import sys
from collections.abc import Callable

from convsearch.errors import ConvsearchError
from convsearch.files import disk_reason
from convsearch.visible import visible

_DISK = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES", "EDQUOT", "EEXIST", "EFBIG", "EISDIR", "ELOOP", "ENAMETOOLONG",
        "ENOENT", "ENOSPC", "ENOTDIR", "ENOTEMPTY", "EPERM", "EROFS",
    )
)  # fmt: skip
"""What a folder or a disk answers that does not take a file; a person can mend it."""


def door_parser(name: str, what: str) -> argparse.ArgumentParser:
    """A parser that shows defaults in its help."""
    return argparse.ArgumentParser(
        prog=name, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def run_door(door: Callable[[], None]) -> None:
    """Errors meant for people become one sentence on stderr and exit code 2, and so does a disk or
    a folder that does not take a file. That an output is kept is said on stderr."""
    _tell_what_is_kept()
    try:
        door()
    except ConvsearchError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if (sentence := _disk_sentence(error)) is None:
            raise
        print(f"error: {visible(sentence)}", file=sys.stderr)
        raise SystemExit(2) from None


class _ToStderr(logging.Handler):
    """Plain lines on what stderr is at that moment: a bar may stand in front of it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


def _tell_what_is_kept() -> None:
    heard = logging.getLogger("convsearch.made")
    if not heard.handlers:
        heard.addHandler(_ToStderr())
        heard.setLevel(logging.INFO)


def _disk_sentence(error: Exception) -> str | None:
    """For an error of a disk or a folder that nobody has made one of; None for any other."""
    what = "a file"
    if isinstance(error, OSError) and error.errno in _DISK:
        what = error.filename2 or error.filename or what  # of a renaming, the name it was for
        reason = error.strerror
    elif (reason := disk_reason(error)) is None:
        return None
    return (
        f"{what}: cannot be read or written ({reason}); make room, mend the permissions, or name "
        "another place"
    )
