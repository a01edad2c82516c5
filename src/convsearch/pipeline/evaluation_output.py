"""What an evaluation was made of: another one in its folder is refused, the same is made again.

Nothing of an unfinished evaluation is used, so it is no obstacle to any other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convsearch.made import Output, content_of
from convsearch.pipeline.evaluation_files import METRICS_NAME, PER_QUERY_NAME, RUN_NAME

PASSPORT = "run.json"
STAGE, TABLE_STAGE = "eval", "eval table"
_ADDRESSES = ("retriever", "fuse_with")


def evaluation_output(
    out_dir: Path,
    settings: Mapping[str, object],
    inputs: Mapping[str, Path],
    *,
    run_name: str = RUN_NAME,
) -> Output:
    """The folder of one evaluation.

    settings: all that shapes it; the address of an engine counts only where `engine` says nothing
    else of it. inputs: by what they are.
    """
    return Output(
        passport=out_dir / PASSPORT,
        command=STAGE,
        made_of=_made_of(settings, inputs),
        results=_files(run_name),
        sources=list(inputs.values()),
    )


def table_output(
    out_dir: Path,
    settings: Mapping[str, object],
    inputs: Mapping[str, Path],
    *,
    folders: Sequence[str],
    results: Sequence[str],
) -> Output:
    """The folder of a table. folders: those of its methods. results: files of the table itself."""
    own = [f"{folder}/{name}" for folder in folders for name in (*_files(RUN_NAME), PASSPORT)]
    return Output(
        passport=out_dir / PASSPORT,
        command=TABLE_STAGE,
        made_of=_made_of(settings, inputs),
        results=results,
        traces=own,
        sources=list(inputs.values()),
    )


def claim(output: Output, *, fresh: bool) -> None:
    """Before anything is searched. Raises ConfigError as `Output.standing` does."""
    output.standing(fresh=fresh, free=output.made_of, kept=False)


def claim_method(out_dir: Path) -> None:
    """The same of the folder of a method, which its table replaces. Raises ConfigError where it is
    another command's."""
    Output(passport=out_dir / PASSPORT, command=STAGE, made_of={}, results=()).standing(fresh=True)


def _files(run_name: str) -> tuple[str, ...]:
    return (run_name, PER_QUERY_NAME, METRICS_NAME)


def _made_of(settings: Mapping[str, object], inputs: Mapping[str, Path]) -> dict[str, object]:
    shaping = {name: value for name, value in settings.items() if name not in _ADDRESSES}
    if "engine" in settings and settings["engine"] is None:
        shaping |= {name: settings.get(name) for name in _ADDRESSES}
    return {**shaping, "inputs": {name: content_of(path) for name, path in inputs.items()}}
