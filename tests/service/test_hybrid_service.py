"""Two indexes fused by one server, opened as the command line does."""

from pathlib import Path

import pytest
from small_corpus import random_passages, random_queries, write_corpus

from convsearch.errors import ConfigError
from convsearch.retrieval.client import RetrieverClient
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.hybrid import HybridBackend
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.loading import load_backend
from retriever_server.process import ServerProcess
from retriever_server.settings import IndexSettings

PASSAGES = random_passages(200)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("hybrid")
    corpus = write_corpus(folder, PASSAGES)
    build_bm25_index(corpus, folder / "one")
    build_bm25_index(corpus, folder / "other", k1=3.0, b=1.0)
    return folder / "one", folder / "other"


def test_a_server_gives_the_ranks_of_the_fused_engines(
    indexes: tuple[Path, Path], tmp_path: Path
) -> None:
    one, other = indexes
    hybrid = HybridBackend(Bm25Backend.load(one), Bm25Backend.load(other))
    queries, golds = random_queries(40), [[p.doc_id] for p in PASSAGES[:40]]
    flags = ["--fuse_with", str(other)]
    with ServerProcess() as server:
        url = server.start(one, None, tmp_path / "server.log", flags=flags)
        with RetrieverClient(url) as client:
            assert client.ranks(queries, golds, 100) == hybrid.ranks(queries, golds, 100)
            assert client.search(queries[:5], 9) == hybrid.search(queries[:5], 9)
    assert hybrid.ranks(queries, golds, 100) != Bm25Backend.load(one).ranks(queries, golds, 100)


def test_two_corpora_and_strange_qrels_are_refused(
    indexes: tuple[Path, Path], tmp_path: Path
) -> None:
    small = write_corpus(tmp_path, PASSAGES[:9])
    build_bm25_index(small, tmp_path / "small")
    with pytest.raises(ConfigError, match="9 and 200 passages"):
        load_backend(IndexSettings(index_path=indexes[0], fuse_with=tmp_path / "small"))
    (tmp_path / "qrels").write_text("q1 0 nope 1\n")
    with pytest.raises(ConfigError, match="1 of 1 gold passages are not in the"):
        load_backend(
            IndexSettings(index_path=indexes[0], fuse_with=indexes[1], trec_path=tmp_path / "qrels")
        )
