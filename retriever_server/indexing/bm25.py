"""Builds a BM25 index folder from `corpus.jsonl`: bm25s' arrays, the passages and a manifest."""

import time
from collections.abc import Iterator
from pathlib import Path

from convsearch.errors import ConfigError, DataError, DependencyError
from convsearch.files import iter_passages
from convsearch.passport import sha256_of, write_passport
from retriever_server.manifest import Manifest, folder_in_making, write_manifest
from retriever_server.store import write_store

ENGINE = "bm25"


def build_bm25_index(
    corpus_path: Path, out_dir: Path, *, k1: float = 0.9, b: float = 0.4
) -> Manifest:
    """Indexes title and text of every passage; returns the manifest.

    k1, b: of BM25 (Lucene's form); the defaults are those of Anserini.
    The folder appears when it is complete; an older index of that name is replaced. The terms of
    the whole corpus are in memory while it is built, about 1 kB a passage of 100 words.
    Raises DataError for a bad corpus, ConfigError for k1, b or a folder that is no index.
    """
    if not (k1 >= 0 and 0 <= b <= 1):
        raise ConfigError(f"BM25 needs k1 of 0 or more and b from 0 to 1; got k1={k1}, b={b}")
    try:
        import bm25s

        from retriever_server.analyzer import ANALYZER
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed; run pip install 'convsearch[retriever]'"
        ) from None
    start = time.monotonic()
    with folder_in_making(out_dir) as folder:
        vocabulary: dict[str, int] = {}
        term_ids = list(_term_ids(corpus_path, folder, vocabulary))
        if not vocabulary:
            raise DataError(f"{corpus_path}: no passage holds a word that can be searched for")
        model = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        model.index((term_ids, vocabulary), create_empty_token=False, show_progress=False)
        model.save(folder, show_progress=False)
        manifest = write_manifest(
            folder,
            ENGINE,
            {
                "num_passages": len(term_ids),
                "num_terms": len(vocabulary),
                "num_tokens": sum(map(len, term_ids)),
                "k1": k1,
                "b": b,
                "analyzer": ANALYZER,
                "corpus_sha256": sha256_of(corpus_path),
            },
        )
        write_passport(
            folder / "run.json",
            stage="index",
            settings={"engine": ENGINE, "k1": k1, "b": b},
            inputs=[corpus_path],
            counts={"passages": len(term_ids)},
            seconds=time.monotonic() - start,
        )
    return manifest


def _term_ids(corpus_path: Path, folder: Path, vocabulary: dict[str, int]) -> Iterator[list[int]]:
    """Term ids of each passage, in the order of first occurrence, so the same corpus gives the
    same files. Fills the vocabulary and the passage store on the way."""
    from retriever_server.analyzer import Analyzer

    analyze = Analyzer()
    for passage in write_store(folder, iter_passages(corpus_path)):
        yield [
            vocabulary.setdefault(term, len(vocabulary))
            for term in analyze(f"{passage.title} {passage.text}")
        ]
