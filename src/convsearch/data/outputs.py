"""What a data set folder was made of: by it a converter keeps or refuses what lies there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convsearch.data.corpus_job import OWNED_FILES
from convsearch.data.dataset import CORPUS, PASSPORT, QRELS, TURNS
from convsearch.made import Output

QUESTIONS = "questions.jsonl"


def folder_output(
    out: Path,
    command: str,
    made_of: Mapping[str, object],
    *,
    results: Sequence[str] = (TURNS, CORPUS, QRELS),
    sources: Sequence[Path] = (),
) -> Output:
    """The folder of a converter.

    made_of: its settings, and the hash of each file that it reads. results: files that it writes in
    any case. sources: files that it reads, where they are the user's own.
    """
    own = [name for name in (*OWNED_FILES, QUESTIONS) if name != PASSPORT]
    return Output(
        passport=out / PASSPORT,
        command=command,
        made_of=made_of,
        results=results,
        traces=(*own, *(f"{name}.gz" for name in own)),
        sources=sources,
    )
