"""Builds a Lucene index folder from `corpus.jsonl`: Anserini's layout and a manifest.

A build that was killed goes on behind its last commit when it is started again with the same corpus
and settings. Passages before it are read and checked again, but not indexed.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from convsearch.errors import DataError
from convsearch.passages import iter_passages
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Passage
from retriever_server.backends.lucene import (
    ANALYZER_CLASS,
    DEFAULT_B,
    DEFAULT_K1,
    ENGINE,
    check_parameters,
    raw_of,
)
from retriever_server.cores import num_cores
from retriever_server.lucene.frames import pack
from retriever_server.lucene.jvm import HELPER_JAR, anserini_jar, jvm
from retriever_server.making import is_made, kept_whole
from retriever_server.manifest import Manifest, file_table, read_manifest, write_manifest

BATCH_SIZE = 2_000
"""Passages that cross to Java at once."""
BUFFER_MB = 256
"""Java memory for passages not yet on disk; well under the default heap."""
COMMIT_S = 30.0
"""Seconds between commits, which is what a kill costs."""
_NOT_LISTED = ("manifest.json", "run.json", "write.lock")
"""Of a killed build that had all but its name; and Lucene's lock, which is an empty file."""


def build_lucene_index(
    corpus_path: Path,
    out_dir: Path,
    *,
    k1: float = DEFAULT_K1,
    b: float = DEFAULT_B,
    threads: int | None = None,
    java_heap: str | None = None,
    commit_s: float = COMMIT_S,
    keep: bool = False,
    on_resume: Callable[[int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Indexes title and text of every passage; returns the manifest.

    The fields are those of Anserini's JsonCollection with `-storeRaw` and `contents` = title, a
    blank, text, so Pyserini reads the folder too. k1, b: used where the index is opened without
    others. threads: None takes all cores; java_heap: None takes 2g. commit_s: seconds between
    commits. on_resume gets the number of passages that a killed build has left, where there are
    any; on_progress the number that Java has taken, those included.
    The folder appears when it is complete; an older index of that name is replaced. keep: one of
    the same corpus and settings is returned as it is, and another one refused. Memory does not grow
    with the corpus, apart from eight bytes for each passage.
    Raises DataError for a bad corpus, ConfigError for k1, b, a folder that is no index or one begun
    with other settings, DependencyError where Java or the jar is missing.
    """
    check_parameters(k1, b)
    machine = jvm(heap=java_heap)
    start = time.monotonic()
    facts = {"k1": float(k1), "b": float(b), "analyzer": ANALYZER_CLASS}
    facts |= {"made_with": anserini_jar().name, "corpus_sha256": sha256_of(corpus_path)}
    if keep and is_made(out_dir, ENGINE, facts):
        return read_manifest(out_dir)
    with kept_whole(out_dir, {**facts, "helper_sha256": sha256_of(HELPER_JAR)}) as folder:
        maker = machine.call(lambda named: _open_maker(named, folder, threads or num_cores()))
        try:
            num_passages = machine.call(lambda _: maker.found())
            if on_resume is not None and num_passages:
                on_resume(num_passages)
            passages = iter_passages(corpus_path)
            deque(islice(passages, num_passages), maxlen=0)
            committed_at = time.monotonic()
            for batch in _batches(passages, BATCH_SIZE):
                frames = pack(
                    text for p in batch for text in (p.doc_id, f"{p.title} {p.text}", raw_of(p))
                )
                machine.call(lambda _, frames=frames: maker.add(frames))
                num_passages += len(batch)
                if on_progress is not None:
                    on_progress(num_passages)
                if time.monotonic() - committed_at >= commit_s:
                    machine.call(lambda _, number=num_passages: maker.commit(number))
                    committed_at = time.monotonic()
            num_searchable = machine.call(lambda _: maker.finish(num_passages))
        except BaseException:
            machine.call(lambda _: maker.close())
            raise
        if not num_searchable:
            raise DataError(f"{corpus_path}: no passage holds a word that can be searched for")
        names = [path.name for path in folder.iterdir() if path.name not in _NOT_LISTED]
        counts = {"num_passages": num_passages, "num_searchable": num_searchable}
        manifest = write_manifest(
            folder, ENGINE, {**counts, **facts, "files": file_table(folder, names)}
        )
        write_passport(
            folder / "run.json",
            stage="index",
            settings={"engine": ENGINE, "k1": k1, "b": b},
            inputs=[corpus_path],
            counts={"passages": num_passages},
            seconds=time.monotonic() - start,
        )
    return manifest


def _open_maker(class_named: Any, folder: Path, threads: int) -> Any:
    analyzer = class_named(ANALYZER_CLASS).newDefaultInstance()
    maker_class = class_named("convsearch.lucene.IndexMaker")
    return maker_class(str(folder.resolve()), analyzer, threads, BUFFER_MB)


def _batches(passages: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    rest = iter(passages)
    while batch := list(islice(rest, size)):
        yield batch
