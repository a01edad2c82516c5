"""What the doors share: the scripts of the original by their old names and flags.

File formats are ours: `turns.jsonl` and `rewrites.jsonl` (also `.gz`), qrels as `qid 0 doc_id rel`,
index folders of `convsearch index`.
"""

import argparse
import sys
from collections.abc import Callable

from convsearch.errors import ConvsearchError


def door_parser(name: str, what: str) -> argparse.ArgumentParser:
    """A parser that shows defaults in its help."""
    return argparse.ArgumentParser(
        prog=name, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def run_door(door: Callable[[], None]) -> None:
    """Errors meant for people become one sentence on stderr and exit code 2."""
    try:
        door()
    except ConvsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
