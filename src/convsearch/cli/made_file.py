"""One file of a `convsearch data` command, and the passport beside it."""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from convsearch.infer.journal import passport_path
from convsearch.made import Output, content_of, refuse_passport_name
from convsearch.passport import write_passport

Counts = dict[str, int]


def make_file(
    out: Path,
    write: Callable[[], Counts],
    *,
    command: str,
    settings: Mapping[str, object],
    inputs: Mapping[str, Path],
    fresh: bool,
) -> Counts:
    """Has the file written, or keeps one that was made of the same; returns the counts.

    settings: all that shapes it besides the content of `inputs`, which go by what they are. Raises
    ConfigError as `Output.standing` does, and IsADirectoryError.
    """
    refuse_passport_name(out)
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    output = Output(
        passport=passport_path(out),
        command=command,
        made_of={**settings, **{name: content_of(path) for name, path in inputs.items()}},
        results=(out.name,),
        sources=list(inputs.values()),
    )
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts = write()
    write_passport(
        output.passport,
        stage=command,
        settings=settings,
        inputs=list(inputs.values()),
        counts=counts,
        made=output.record,
    )
    return counts
