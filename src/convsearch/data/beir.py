"""Relevance judgements of a BEIR folder: `qrels/{train,dev,test}.tsv` beside `queries.jsonl`."""

from collections.abc import Iterator
from pathlib import Path

from convsearch.errors import DataError, MissingFileError
from convsearch.files import read_lines

HEADER = ("query-id", "corpus-id", "score")
SPLITS = ("test", "dev", "train")
"""A question that several of them judge belongs to the first: nothing of it is trained on."""


def read_beir_qrels(queries: Path) -> dict[str, tuple[str, list[str]]]:
    """qid -> (split, ids of passages whose score is above 0).

    queries: the file of the questions. Raises MissingFileError where no judgements lie beside it,
    DataError for a line without three columns or a score that is no number.
    """
    folder = queries.parent / "qrels"
    paths = {split: folder / f"{split}.tsv" for split in SPLITS}
    if not any(path.is_file() for path in paths.values()):
        raise MissingFileError(
            f"{queries}: single questions in BEIR's form, and no judgements beside them; wanted: "
            f"{folder / 'test.tsv'} with the columns {', '.join(HEADER)}"
        )
    judged: dict[str, tuple[str, list[str]]] = {}
    for split, path in paths.items():
        for qid, doc_id, is_relevant in judgements(path) if path.is_file() else ():
            of_split, golds = judged.setdefault(qid, (split, []))
            if is_relevant and of_split == split:
                golds.append(doc_id)
    return judged


def judgements(path: Path) -> Iterator[tuple[str, str, bool]]:
    """(qid, passage, whether its score is above 0), line by line. Raises DataError for a line
    without three columns or a score that is no number."""
    for where, line in read_lines(path):
        row = line.split()
        if tuple(row) == HEADER:
            continue
        if len(row) != len(HEADER):
            raise DataError(f"{where}: expected 3 columns ({', '.join(HEADER)})")
        qid, doc_id, score = row
        try:
            is_relevant = float(score) > 0
        except ValueError:
            raise DataError(f"{where}: score must be a number, found {score!r}") from None
        yield qid, doc_id, is_relevant
