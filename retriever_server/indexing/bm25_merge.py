"""Puts the parts of a BM25 index together. Memory grows with the number of distinct terms, not with
the passages: postings are merged a range of terms at a time and written in order."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import DataError
from convsearch.files import writing
from retriever_server.bm25.arrays import BLOCK, MAX_PASSAGES, TF_OVERFLOW, array_path
from retriever_server.bm25.similarity import caps, inverse_norms
from retriever_server.bm25.terms import Keys
from retriever_server.indexing.bm25_parts import IDS, PASSAGES, PartArrays, open_part
from retriever_server.saving import mapped_array, save_array
from retriever_server.store import finish_store

RANGE_POSTINGS = 4_000_000
"""Postings that are merged at once, about 200 MB in memory."""
Int64s = npt.NDArray[np.int64]


def merge_parts(
    folders: Sequence[Path],
    out: Path,
    *,
    k1: float,
    b: float,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, int]:
    """Writes store and arrays of the whole index to the folder `out`; returns its counts.

    folders: of the parts, in the order of passages. on_progress: called with the share done.
    Raises RepeatedIdError where an id occurs twice, DataError where no passage holds a term.
    """
    parts = [open_part(folder) for folder in folders]
    _merge_stores(folders, parts, out)
    lengths = np.concatenate([part.lengths for part in parts])
    save_array(array_path(out, "lengths"), lengths)
    num_tokens, num_searchable = np.sum([part.counts for part in parts], axis=0).tolist()
    if num_tokens == 0:
        raise DataError("no passage holds a word that can be searched for")
    keys, num_postings, num_entries = _vocabulary(parts)
    save_array(array_path(out, "keys"), keys)
    term_postings = np.concatenate([[0], np.cumsum(num_postings)])
    save_array(array_path(out, "term_postings"), term_postings)
    term_entries = np.concatenate([[0], np.cumsum(num_entries)])
    if len(lengths) > MAX_PASSAGES or term_entries[-1] >= 2**32:
        raise DataError(
            f"{len(lengths)} passages are more than one index holds; split the corpus and "
            "serve the parts as shards"
        )
    save_array(array_path(out, "term_entries"), term_entries.astype(np.uint32))
    norms = inverse_norms(k1, b, num_tokens, num_searchable)
    _merge_postings(
        parts, out, keys, term_postings, int(num_entries.sum()), norms[lengths], on_progress
    )
    return {
        "num_passages": len(lengths),
        "num_searchable": num_searchable,
        "num_terms": len(keys),
        "num_tokens": num_tokens,
        "num_postings": int(term_postings[-1]),
    }


def _merge_stores(folders: Sequence[Path], parts: Sequence[PartArrays], out: Path) -> None:
    for name in (PASSAGES, IDS):
        with writing(out / name), (out / name).open("wb") as whole:
            for folder in folders:
                with (folder / name).open("rb") as piece:
                    shutil.copyfileobj(piece, whole, 2**20)
    finish_store(
        out,
        np.cumsum(np.concatenate([[0], *(part.line_sizes for part in parts)])),
        np.cumsum(np.concatenate([[0], *(part.id_sizes for part in parts)])),
    )


def _vocabulary(parts: Sequence[PartArrays]) -> tuple[Keys, Int64s, Int64s]:
    """All terms by key, and how many postings and entries each has."""
    keys = np.empty((0, 2), dtype=np.uint64)
    postings = entries = np.empty(0, dtype=np.int64)
    for part in parts:
        own = np.asarray(part.keys)
        places = np.searchsorted(keys[:, 0], own[:, 0])
        known = np.zeros(len(own), dtype=bool)
        inside = places < len(keys)
        known[inside] = keys[places[inside], 0] == own[inside, 0]
        if not (keys[places[known]] == own[known]).all():
            raise DataError("two terms share the first half of their hash; report this corpus")
        new = ~known
        keys = np.insert(keys, places[new], own[new], axis=0)
        postings = np.insert(postings, places[new], 0)
        entries = np.insert(entries, places[new], 0)
        at = np.searchsorted(keys[:, 0], own[:, 0])
        postings[at] += np.diff(part.term_postings)
        entries[at] += np.diff(part.term_entries)
    return keys, postings, entries


def _merge_postings(
    parts: Sequence[PartArrays],
    out: Path,
    keys: Keys,
    term_postings: Int64s,
    num_entries: int,
    norms_N: npt.NDArray[np.float32],
    on_progress: Callable[[float], None] | None,
) -> None:
    num_postings = int(term_postings[-1])
    shapes = {"docs": num_postings, "tfs": num_postings, "caps": num_postings}
    shapes |= {"entry_blocks": num_entries, "entry_sizes": num_entries, "entry_caps": num_entries}
    types = {"docs": np.uint16, "entry_blocks": np.uint16, "entry_sizes": np.uint16}
    files = {
        name: mapped_array(array_path(out, name), types.get(name, np.uint8), size)
        for name, size in shapes.items()
    }
    overflow_at, overflow_tf = [], []
    posting = entry = first = 0
    while first < len(keys):
        room = np.searchsorted(term_postings, term_postings[first] + RANGE_POSTINGS, side="right")
        last = max(first + 1, int(room) - 1)
        blocks, sizes, docs, tfs = _range_of(parts, keys, first, last)
        large = np.flatnonzero(tfs >= TF_OVERFLOW)
        overflow_at.append(posting + large)
        overflow_tf.append(tfs[large])
        positions = np.repeat(blocks.astype(np.int64), sizes) * BLOCK + docs
        shares = caps(tfs, norms_N[positions])
        now = slice(posting, posting + len(docs))
        files["docs"][now], files["caps"][now] = docs, shares
        files["tfs"][now] = np.minimum(tfs, TF_OVERFLOW)
        now = slice(entry, entry + len(blocks))
        files["entry_blocks"][now], files["entry_sizes"][now] = blocks, sizes
        files["entry_caps"][now] = np.maximum.reduceat(shares, np.cumsum(sizes) - sizes)
        posting, entry, first = posting + len(docs), entry + len(blocks), last
        if on_progress is not None:
            on_progress(posting / num_postings)
    for file in files.values():
        file.flush()
    save_array(array_path(out, "overflow_at"), np.concatenate(overflow_at))
    save_array(array_path(out, "overflow_tf"), np.concatenate(overflow_tf).astype(np.int32))


def _range_of(
    parts: Sequence[PartArrays], keys: Keys, first: int, last: int
) -> tuple[Int64s, Int64s, npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Blocks and sizes of the segments, docs and tfs of the postings of a range of terms."""
    terms, blocks, sizes, docs, tfs = [], [], [], [], []
    end = keys[last, 0] if last < len(keys) else None
    for part in parts:
        own = part.keys[:, 0]
        low = int(np.searchsorted(own, keys[first, 0]))
        high = len(own) if end is None else int(np.searchsorted(own, end))
        segments = slice(int(part.term_entries[low]), int(part.term_entries[high]))
        postings = slice(int(part.term_postings[low]), int(part.term_postings[high]))
        number = np.searchsorted(keys[first:last, 0], own[low:high])
        terms.append(np.repeat(number, np.diff(part.term_entries[low : high + 1])))
        blocks.append(part.entry_blocks[segments])
        sizes.append(part.entry_sizes[segments])
        docs.append(part.docs[postings])
        tfs.append(part.tfs[postings])
    sizes_E = np.concatenate(sizes).astype(np.int64)
    order = np.argsort(np.concatenate(terms), kind="stable")  # parts are in the order of blocks
    starts = (np.cumsum(sizes_E) - sizes_E)[order]
    sizes_E = sizes_E[order]
    ends = np.cumsum(sizes_E)
    source = np.repeat(starts - (ends - sizes_E), sizes_E) + np.arange(int(ends[-1]))
    return (
        np.concatenate(blocks)[order].astype(np.int64),
        sizes_E,
        np.concatenate(docs)[source],
        np.concatenate(tfs)[source],
    )
