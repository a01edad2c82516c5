"""One file of a `convsearch data` command, and the passport beside it."""

from collections.abc import Callable, Mapping, Sequence
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
    inputs: Sequence[Path],
    fresh: bool,
) -> Counts:
    """Has the file written, or keeps one that was made of the same; returns the counts.

    settings: all that shapes it besides the content of `inputs`. Raises ConfigError as
    `Output.standing` does.
    """
    refuse_passport_name(out)
    output = Output(
        passport=passport_path(out),
        command=command,
        made_of={**settings, "inputs": [content_of(path) for path in inputs]},
        results=(out.name,),
        sources=inputs,
    )
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts = write()
    write_passport(
        output.passport,
        stage=command,
        settings=settings,
        inputs=inputs,
        counts=counts,
        made=output.record,
    )
    return counts
