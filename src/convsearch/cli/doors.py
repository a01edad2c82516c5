"""What the doors share: the scripts of the original by their old names and flags.

File formats are ours: `turns.jsonl` and `rewrites.jsonl` (also `.gz`), qrels as `qid 0 doc_id rel`,
index folders of `convsearch index`.
"""

import argparse
import errno
import sys
from collections.abc import Callable

from convsearch.errors import ConvsearchError
from convsearch.visible import visible

_DISK = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES", "EDQUOT", "EEXIST", "EFBIG", "EISDIR", "ENAMETOOLONG", "ENOSPC", "ENOTDIR",
        "ENOTEMPTY", "EPERM", "EROFS",
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
    a folder that does not take a file."""
    try:
        door()
    except ConvsearchError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in _DISK:
            raise
        what = error.filename2 or error.filename or "a file"  # of a renaming, the name it was for
        print(
            f"error: {visible(str(what))}: cannot be read or written ({error.strerror}); make "
            "room, mend the permissions, or name another place",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
