"""Builds a BM25 index folder from `corpus.jsonl`: parts by worker processes, then one merge.

A build that was killed goes on where it was when it is started again with the same corpus and
settings. The same corpus gives the same files, whatever the number of workers.
"""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from convsearch.errors import ConfigError, DataError, DependencyError, EngineError, install_command
from convsearch.passages import passage_lines, refuse_repeated_ids
from convsearch.passport import sha256_of, write_passport
from retriever_server.cores import num_cores
from retriever_server.making import is_made, parts_and_whole
from retriever_server.manifest import Manifest, file_table, read_manifest, write_manifest

ENGINE = "bm25"
LAYOUT = "blocks/1"
"""Name of the arrays' layout; an index with another is refused."""
PART_BLOCKS = 16
"""Blocks of a part: 65,536 passages, some 60 MB of text and 150 MB while they are analysed."""

Progress = Callable[[str, float], None]
"""Called with `analysing` and the number of passages done, then `merging` and the share done."""


def build_bm25_index(
    corpus_path: Path,
    out_dir: Path,
    *,
    k1: float = 0.9,
    b: float = 0.4,
    workers: int | None = None,
    part_blocks: int = PART_BLOCKS,
    keep: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Indexes title and text of every passage; returns the manifest.

    k1, b: of BM25 (Lucene's form); the defaults are those of Anserini. workers: processes, by
    default one for each processor. The folder appears when it is complete; an older index of that
    name is replaced. keep: one of the same corpus and settings is returned as it is, and another
    one refused. Memory: some 250 MB for each worker; in the merge, 60 bytes a passage and 40
    a distinct term, beside the pages of mapped files.
    Raises DataError for a bad corpus, ConfigError for k1, b or a folder that is no index.
    """
    if not (k1 >= 0 and 0 <= b <= 1):
        raise ConfigError(f"BM25 needs k1 of 0 or more and b from 0 to 1; got k1={k1}, b={b}")
    try:
        from retriever_server.analyzer import ANALYZER
        from retriever_server.bm25.arrays import BLOCK
        from retriever_server.indexing.bm25_merge import merge_parts
        from retriever_server.store import RepeatedIdError
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run {install_command('retriever')}"
        ) from None
    on_passages = partial(on_progress, "analysing") if on_progress else None
    on_merged = partial(on_progress, "merging") if on_progress else None
    start = time.monotonic()
    corpus_hash = sha256_of(corpus_path)
    settings = {"k1": float(k1), "b": float(b), "analyzer": ANALYZER, "layout": LAYOUT}
    if keep and is_made(out_dir, ENGINE, {**settings, "corpus_sha256": corpus_hash}):
        return read_manifest(out_dir)
    job = {"corpus_sha256": corpus_hash, "part_blocks": part_blocks, **settings}
    with parts_and_whole(out_dir, job) as (parts_dir, folder):
        size = part_blocks * BLOCK
        parts = _write_parts(corpus_path, parts_dir, size, part_blocks, workers, on_passages)
        try:
            counts = merge_parts(parts, folder, k1=k1, b=b, on_progress=on_merged)
        except RepeatedIdError as error:
            refuse_repeated_ids(corpus_path, [hash(error.doc_id)])
            raise
        except DataError as error:
            raise DataError(f"{corpus_path}: {error}") from None
        facts = {**counts, **settings, "corpus_sha256": corpus_hash}
        manifest = write_manifest(folder, ENGINE, {**facts, "files": file_table(folder)})
        write_passport(
            folder / "run.json",
            stage="index",
            settings={"engine": ENGINE, **settings},
            inputs=[corpus_path],
            counts={"passages": counts["num_passages"]},
            seconds=time.monotonic() - start,
        )
    return manifest


def _write_parts(
    corpus_path: Path,
    parts_dir: Path,
    size: int,
    part_blocks: int,
    workers: int | None,
    on_passages: Callable[[int], None] | None,
) -> list[Path]:
    """Folders of all parts, those written that are missing."""
    from retriever_server.indexing.bm25_parts import write_part

    workers = workers or num_cores()
    folders: list[Path] = []
    lines = passage_lines(corpus_path)
    batches = iter(lambda: list(itertools.islice(lines, size)), [])
    first = next(batches, None)
    if first is None:
        raise DataError(f"{corpus_path}: the corpus is empty; it must hold at least one passage")
    # a corpus of one part is not worth a process
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if len(first) == size else None
    running: set[Future[int]] = set()
    try:
        for number, batch in enumerate(itertools.chain([first], batches)):
            folder = parts_dir / f"part-{number:05d}"
            folders.append(folder)
            if not folder.is_dir():
                if pool is None:
                    write_part(folder, batch, number * part_blocks)
                else:
                    running = _finish(running) if len(running) > workers else running
                    running.add(pool.submit(write_part, folder, batch, number * part_blocks))
            if on_passages is not None:
                on_passages((len(folders) - len(running)) * size)
        while running:
            running = _finish(running)
            if on_passages is not None:
                on_passages((len(folders) - len(running)) * size)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    return folders


def _finish(running: set[Future[int]]) -> set[Future[int]]:
    """Waits for one of them; raises what it raised."""
    done, left = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        try:
            future.result()
        except BrokenExecutor:
            raise EngineError(
                "a worker of the index build was killed, perhaps for want of memory; start again "
                "with fewer --workers: what is done is kept"
            ) from None
    return left
