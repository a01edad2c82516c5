"""The folders of `convsearch agent eval`, `ablate` and `sweep`: what they were made of."""

from collections.abc import Mapping
from pathlib import Path

from convsearch.made import Output, content_of

SCORES = ("metrics.json", "per_question.jsonl")


def claimed(
    out: Path,
    command: str,
    settings: Mapping[str, object],
    inputs: Mapping[str, Path],
    *,
    results: tuple[str, ...] = SCORES,
    fresh: bool,
) -> Output:
    """The folder, once nothing else lies there.

    settings: all that shapes the scores; inputs: by what they are. The same is made again: nothing
    of an unfinished one is used. Raises ConfigError as `Output.standing` does.
    """
    content = {name: content_of(path) for name, path in inputs.items()}
    output = Output(
        passport=out / "run.json",
        command=command,
        made_of={**settings, "inputs": content},
        results=results,
        sources=list(inputs.values()),
    )
    output.standing(fresh=fresh, free=output.made_of, kept=False)
    return output
