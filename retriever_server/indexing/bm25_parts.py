"""One part of a BM25 index: the passages of some blocks, analysed and sorted by term.

A part is a folder that appears when it is complete, so a build that was killed goes on with the
parts that are missing.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convsearch.files import writing
from convsearch.passages import parse_passage
from convsearch.texts import parse_json
from retriever_server.analyzer import Analyzer
from retriever_server.bm25.arrays import BLOCK
from retriever_server.bm25.similarity import length_codes
from retriever_server.bm25.terms import term_keys
from retriever_server.saving import save_array
from retriever_server.store import passage_line

Line = tuple[str, str]
"""`file:line` and the line."""
PASSAGES, IDS = "passages.jsonl", "doc_ids.txt"
_analyzers: list[Analyzer] = []


class PartArrays(NamedTuple):
    """As in `Bm25Arrays`, but of the part's own terms and with whole frequencies."""

    keys: npt.NDArray[np.uint64]
    term_entries: npt.NDArray[np.int64]
    term_postings: npt.NDArray[np.int64]
    entry_blocks: npt.NDArray[np.uint16]
    entry_sizes: npt.NDArray[np.uint16]
    docs: npt.NDArray[np.uint16]
    tfs: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.uint8]
    line_sizes: npt.NDArray[np.int64]
    """Bytes of each line of the part's passages."""
    id_sizes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    """Tokens of the part, and passages with at least one."""


def write_part(folder: Path, lines: Sequence[Line], first_block: int) -> int:
    """Analyses the lines of a corpus and writes the part; returns the number of passages.

    first_block: of the part in the index. Raises DataError for a line that is no passage.
    """
    if not _analyzers:
        _analyzers.append(Analyzer())  # one a process: it remembers the words it has seen
    analyze = _analyzers[0]
    making = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    making.mkdir()
    try:
        local: dict[str, int] = {}
        terms, docs, tfs = [], [], []
        lengths, line_sizes, id_sizes = [], [], []
        with (
            writing(folder / IDS),
            (making / IDS).open("wb") as ids,
            writing(folder / PASSAGES),
            (making / PASSAGES).open("wb") as out,
        ):
            for position, (where, line) in enumerate(lines):
                passage = parse_passage(parse_json(line, where), where)
                counts = Counter(analyze(f"{passage.title} {passage.text}"))
                terms += [local.setdefault(term, len(local)) for term in counts]
                tfs += counts.values()
                docs += [position] * len(counts)
                lengths.append(counts.total())
                line_sizes.append(out.write(passage_line(passage)))
                id_sizes.append(ids.write(passage.doc_id.encode() + b"\n"))
        keys = term_keys(local)
        arrays = _sorted(
            keys, np.asarray(terms), np.asarray(docs), np.asarray(tfs), first_block
        )._replace(
            lengths=length_codes(np.asarray(lengths)),
            line_sizes=np.asarray(line_sizes),
            id_sizes=np.asarray(id_sizes),
            counts=np.asarray([sum(lengths), np.count_nonzero(lengths)]),
        )
        for name, array in arrays._asdict().items():
            save_array(making / f"{name}.npy", array)
        making.replace(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return len(lines)


def open_part(folder: Path) -> PartArrays:
    """The arrays of a part, memory-mapped."""
    names = PartArrays._fields
    return PartArrays(**{n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in names})


def _sorted(
    keys: npt.NDArray[np.uint64],
    terms: npt.NDArray[np.int64],
    docs: npt.NDArray[np.int64],
    tfs: npt.NDArray[np.int64],
    first_block: int,
) -> PartArrays:
    """Postings in the order of terms, passages and with their segments."""
    by_key = np.argsort(keys[:, 0], kind="stable")
    number = np.empty(len(keys), dtype=np.int64)
    number[by_key] = np.arange(len(keys))
    terms = number[terms.astype(np.int64)]
    order = np.argsort(terms, kind="stable")  # passages rise already
    terms, docs, tfs = terms[order], docs[order].astype(np.int64), tfs[order]
    blocks = docs // BLOCK
    starts = np.flatnonzero(np.diff(terms, prepend=-1) | np.diff(blocks, prepend=-1))
    sizes = np.diff(starts, append=len(terms))
    none = np.empty(0, dtype=np.int64)
    return PartArrays(
        keys=keys[by_key],
        term_entries=np.searchsorted(terms[starts], np.arange(len(keys) + 1)),
        term_postings=np.searchsorted(terms, np.arange(len(keys) + 1)),
        entry_blocks=(blocks[starts] + first_block).astype(np.uint16),
        entry_sizes=sizes.astype(np.uint16),
        docs=(docs % BLOCK).astype(np.uint16),
        tfs=tfs.astype(np.int32),
        lengths=none.astype(np.uint8),
        line_sizes=none,
        id_sizes=none,
        counts=none,
    )
