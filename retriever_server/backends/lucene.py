"""BM25 by Lucene, over an index of Anserini, of Pyserini, or of `convsearch index`."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convsearch.errors import ConfigError, DataError, EngineError, MissingFileError
from convsearch.retrieval.checks import check_rank_call, check_topk, refuse_unknown
from convsearch.retrieval.info import IndexInfo
from convsearch.types import Hit, Passage
from retriever_server.cores import num_cores
from retriever_server.lucene.frames import FrameReader, pack, unpack
from retriever_server.lucene.jvm import Jvm, jvm
from retriever_server.manifest import (
    Manifest,
    check_facts,
    check_files,
    fact,
    has_manifest,
    index_info,
    is_plain_lucene,
    read_manifest,
    without_files,
)

ENGINE = "lucene"
DEFAULT_K1, DEFAULT_B = 0.9, 0.4
"""Those of Anserini."""
ANALYZER_CLASS = "io.anserini.analysis.DefaultEnglishAnalyzer"


def check_parameters(k1: float, b: float) -> None:
    """Raises ConfigError for what BM25 cannot work with."""
    if not (0 <= k1 < float("inf") and 0 <= b <= 1):
        raise ConfigError(f"BM25 needs k1 of 0 or more and b from 0 to 1; got k1={k1}, b={b}")


class LuceneBackend:
    """A `Retriever` over a Lucene index. Safe for threads; a batch is shared out among threads
    in Java.

    A rank is counted: Lucene scores the gold passage first and then looks only at what can reach
    that score. Ties go by doc_id, as in Anserini and in the other engines.
    """

    def __init__(self, java: Jvm, search: Any, info: IndexInfo, folder: Path) -> None:
        """search: an open `convsearch.lucene.GoldSearch`. Use `load`."""
        self.info = info
        self._java = java
        self._search = search
        self._folder = folder

    @classmethod
    def load(
        cls,
        index_dir: Path,
        *,
        k1: float | None = None,
        b: float | None = None,
        threads: int | None = None,
        java_heap: str | None = None,
    ) -> "LuceneBackend":
        """Opens a folder with a Lucene index, ours or another program's.

        k1, b: of BM25, chosen freely at search time; None takes what the manifest says, and 0.9
        and 0.4 where there is none. threads: for one batch; None takes all cores. java_heap: of
        the process, which the first index opened in it decides; None takes 2g.
        The passages must have the fields `id` and `contents` of Anserini's collections, analysed
        by its default English analyzer.
        Raises MissingFileError, DataError, ConfigError or DependencyError, each with the next step.
        """
        manifest = _manifest(index_dir)
        k1 = _chosen(k1, manifest, index_dir, "k1", DEFAULT_K1)
        b = _chosen(b, manifest, index_dir, "b", DEFAULT_B)
        check_parameters(k1, b)
        machine = jvm(heap=java_heap)
        try:
            search, size, fits = machine.call(
                lambda class_named: _open(class_named, index_dir, k1, b, threads or num_cores())
            )
        except EngineError as error:
            raise DataError(
                f"{index_dir}: the Lucene index cannot be opened; build it again ({error})"
            ) from None
        if not fits:
            raise DataError(
                f"{index_dir}: no passage has the fields 'id' and 'contents'; build the index with "
                'Anserini\'s IndexCollection or with "convsearch index --engine lucene"'
            )
        if manifest is not None and fact(manifest, index_dir, "num_passages", int) != size:
            raise DataError(
                f"{index_dir}: manifest and index differ in the number of passages; rebuild the "
                'index with "convsearch index --engine lucene"'
            )
        return cls(machine, search, _info(index_dir, manifest, size, k1, b), index_dir)

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`."""
        check_rank_call(queries, golds, topk)
        ids = pack(doc_id for some in golds for doc_id in some)
        self._check_known(ids)
        if not queries:
            return []
        counts, texts = [len(some) for some in golds], pack(queries)
        ranks = self._java.call(lambda _: self._search.ranks(texts, ids, counts, topk))
        return [rank or None for rank in ranks]

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        texts = pack(queries)
        answer = FrameReader(
            self._java.call(lambda _: self._search.search(texts, topk).tostring())
            if queries
            else b""
        )
        results = []
        for _ in queries:
            scored = [(answer.real(), answer.text() or "") for _ in range(answer.number())]
            results.append([Hit(doc_id=doc_id, score=score) for score, doc_id in scored])
        return results

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`. Raises DataError where the index has no stored passages."""
        ids = pack(doc_ids)
        self._check_known(ids)
        if not doc_ids:
            return []
        stored = FrameReader(self._java.call(lambda _: self._search.stored(ids).tostring()))
        return [self._passage(doc_id, stored.text(), stored.text()) for doc_id in doc_ids]

    def unknown(self, doc_ids: Sequence[str]) -> list[str]:
        """Those of these ids that are not in the index."""
        return self._unknown(pack(doc_ids))

    def _unknown(self, ids: bytes) -> list[str]:
        if not ids:
            return []
        return unpack(self._java.call(lambda _: self._search.missing(ids).tostring()))

    def _check_known(self, ids: bytes) -> None:
        refuse_unknown(self._unknown(ids))

    def _passage(self, doc_id: str, raw: str | None, contents: str | None) -> Passage:
        if raw is not None:
            return read_raw(doc_id, raw)
        if contents is not None:
            return Passage(doc_id=doc_id, title="", text=contents)
        raise DataError(
            f"{self._folder}: passage {doc_id!r} has no stored text; rebuild the index with "
            'Anserini\'s -storeRaw or with "convsearch index --engine lucene", or ask for ranks '
            "and ids only"
        )


def raw_of(passage: Passage) -> str:
    """What is stored for a passage: a record of Anserini's JsonCollection, in ASCII."""
    record = {
        "id": passage.doc_id,
        "title": passage.title,
        "contents": f"{passage.title} {passage.text}",
    }
    return json.dumps(record)


def read_raw(doc_id: str, raw: str) -> Passage:
    """A stored record as a passage.

    Records of `raw_of` come back as they were. Elsewhere title and text are taken from fields of
    these names, `contents` stands in for the text, and what is no JSON is the text itself.
    """
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return Passage(doc_id=doc_id, title="", text=raw)
    texts = {name: value for name, value in record.items() if isinstance(value, str)}
    title, contents = texts.get("title", ""), texts.get("contents", "")
    text = texts.get("text")
    if text is None:
        text = contents.removeprefix(f"{title} ") if "title" in texts else contents
    return Passage(doc_id=doc_id, title=title, text=text)


def _manifest(index_dir: Path) -> Manifest | None:
    """None for an index that another program made."""
    if is_plain_lucene(index_dir):
        return None
    if not has_manifest(index_dir):
        raise MissingFileError(
            f"{index_dir}: not a Lucene index (no segments_* file); make one with "
            '"convsearch index --engine lucene"'
        )
    manifest = read_manifest(index_dir)
    if manifest.get("engine") != ENGINE:
        raise DataError(
            f"{index_dir}: this is a {manifest.get('engine')} index; choose that retriever, or "
            'build a Lucene index with "convsearch index --engine lucene"'
        )
    if "files" in manifest:  # not in those from before
        check_files(manifest, index_dir)
    return manifest


def _chosen(
    wanted: float | None, manifest: Manifest | None, folder: Path, name: str, default: float
) -> float:
    if wanted is not None or manifest is None:
        return default if wanted is None else wanted
    return fact(manifest, folder, name, float)


def _open(
    class_named: Any, index_dir: Path, k1: float, b: float, threads: int
) -> tuple[Any, int, bool]:
    analyzer = class_named(ANALYZER_CLASS).newDefaultInstance()
    search_class = class_named("convsearch.lucene.GoldSearch")
    search = search_class(str(index_dir.resolve()), analyzer, k1, b, threads)
    return search, search.size(), search.fits()


def _info(
    index_dir: Path, manifest: Manifest | None, num_passages: int, k1: float, b: float
) -> IndexInfo:
    """Equal indexes of `convsearch index` share a fingerprint. Lucene gives each index it makes a
    random number, so one of another program is equal to itself and its copies."""
    if manifest is not None:
        check_facts(manifest, index_dir)
        content = index_info(without_files(manifest), index_dir).fingerprint
    else:
        commit = max(index_dir.glob("segments_*"), key=lambda path: int(path.name[9:], 36))
        content = hashlib.sha256(commit.read_bytes()).hexdigest()
    digest = hashlib.sha256(f"{content} {k1} {b}".encode()).hexdigest()
    return IndexInfo(engine=ENGINE, num_passages=num_passages, fingerprint=digest)
