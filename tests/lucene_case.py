"""Lucene for tests: whether it is there, and Anserini itself as the second opinion."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from convsearch.errors import DependencyError
from convsearch.types import Passage
from retriever_server.lucene.frames import pack, unpack
from retriever_server.lucene.jvm import anserini_jar, find_java, jvm


def _reason() -> str | None:
    try:
        anserini_jar()
        find_java()
        pytest.importorskip("jnius_config")
    except (DependencyError, pytest.skip.Exception) as error:
        return str(error)
    return None


REASON = _reason()
"""Why Lucene cannot run here, None where it can."""
needs_lucene = pytest.mark.skipif(REASON is not None, reason=f"Lucene absent: {REASON}")


def anserini_index(passages: Sequence[Passage], folder: Path, *flags: str) -> Path:
    """An index by Anserini's own IndexCollection, as users of Pyserini make it."""
    source, out = folder / "json", folder / "anserini"
    source.mkdir(parents=True)
    records = [{"id": p.doc_id, "contents": f"{p.title} {p.text}"} for p in passages]
    (source / "docs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    arguments = ["-collection", "JsonCollection", "-input", str(source), "-index", str(out)]
    arguments += ["-generator", "DefaultLuceneDocumentGenerator", "-threads", "1", *flags]

    def build(class_named):
        class_named("org.apache.logging.log4j.core.config.Configurator").setRootLevel(
            class_named("org.apache.logging.log4j.Level").OFF
        )
        class_named("io.anserini.index.IndexCollection").main(arguments)

    jvm().call(build)
    return out


def anserini_ids(
    index: Path, queries: Sequence[str], topk: int, *, k1: float, b: float
) -> list[list[str]]:
    """Lists of ids by Anserini's SimpleSearcher."""

    def ask(class_named):
        searcher = class_named("io.anserini.search.SimpleSearcher")(str(index))
        searcher.set_bm25(k1, b)
        lists = [[hit.docid for hit in searcher.search(query, topk)] for query in queries]
        searcher.close()
        return lists

    return jvm().call(ask)


class LuceneAnalyzer:
    """A Lucene analyzer behind the interface of ours."""

    def __init__(self, *, words_only: bool = False) -> None:
        """words_only: StandardAnalyzer without stop words, which cuts and lowers and no more."""

        def load(class_named):
            if not words_only:
                return class_named(
                    "io.anserini.analysis.DefaultEnglishAnalyzer"
                ).newDefaultInstance()
            none = class_named("org.apache.lucene.analysis.CharArraySet")(1, False)
            return class_named("org.apache.lucene.analysis.standard.StandardAnalyzer")(none)

        self._analyzer = jvm().call(load)

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text."""
        packed = pack(texts)
        answer = jvm().call(
            lambda named: (
                named("convsearch.lucene.Terms").analyze(self._analyzer, packed).tostring()
            )
        )
        return [[term for term in line.split("\n") if term] for line in unpack(answer)]
