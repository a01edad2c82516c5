"""`NAME=PATH` and `PATH,PATH` of a command line, taken apart. What exists as a path is one, before
`=` and `,` are looked at: folders of experiments are called `lr=3e-4,bs=8`."""

import os
from pathlib import Path


def named_path(word: str) -> tuple[str | None, str]:
    """(name, path); the name is None where the word is a path alone.

    A name has no separator of folders, so a path that does not exist (yet, or by a slip) is not
    cut at an `=` in one of its folders.
    """
    name, equals, path = word.partition("=")
    if not equals or exists(word) or os.sep in name:
        return None, word
    return name, path


def path_list(words: str) -> list[str]:
    """Paths by commas. Parts that together are an existing path are one, the longest first."""
    if exists(words):
        return [words]
    parts = words.split(",")
    paths, start = [], 0
    while start < len(parts):
        ends = range(len(parts), start, -1)
        joined = (",".join(parts[start:end]) for end in ends)
        found = next((path for path in joined if exists(path)), parts[start])
        paths.append(found)
        start += found.count(",") + 1
    return paths


def exists(word: str) -> bool:
    """Whether the word is a file or a folder; also for what no path can be."""
    try:
        return bool(word) and Path(word).exists()
    except (OSError, ValueError):
        return False
