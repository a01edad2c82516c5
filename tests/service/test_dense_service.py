"""A dense index behind the real door, as `--retriever_name ance` users run it."""

from pathlib import Path

import httpx
import pytest
from live_server import refusal
from small_corpus import make_tiny_ance, random_passages, random_queries, write_corpus

from convsearch.retrieval.client import RetrieverClient
from retriever_server.backends.dense import DenseBackend
from retriever_server.indexing.dense import build_dense_index
from retriever_server.process import ServerProcess


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and `index`."""
    folder = tmp_path_factory.mktemp("dense-door")
    make_tiny_ance(folder / "encoder")
    corpus = write_corpus(folder, random_passages(40))
    build_dense_index(corpus, folder / "index", encoder_path=folder / "encoder")
    return folder


def test_ranks_over_http_are_those_of_the_engine(world: Path, tmp_path: Path) -> None:
    engine = DenseBackend.load_exact(world / "index", world / "encoder")
    queries = random_queries(8)
    qrels = tmp_path / "qrels.trec"
    qrels.write_text("q1 0 p7 1\nq1 0 p8 1\n")
    expected = engine.ranks(queries, [["p7", "p8"]] * 8, 40)
    with ServerProcess() as server:
        log = tmp_path / "server.log"
        url = server.start(world / "index", qrels, log, encoder_path=world / "encoder")
        with RetrieverClient(url) as client:
            assert client.ranks_by_qid(queries, ["q1"] * 8, 40) == expected
            found = [[hit.doc_id for hit in hits] for hits in client.search(queries, 5)]
        assert found == [[hit.doc_id for hit in hits] for hits in engine.search(queries, 5)]
        body = {"queries": queries, "query_ids": ["q1"] * 8, "topk": 40, "max_length": 3}
        cut = httpx.post(f"{url}/retrieve", json=body, timeout=60).json()["result"]
        assert cut == engine.with_query_length(3).ranks(queries, [["p7", "p8"]] * 8, 40) != expected


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--retriever_name", "ance"], "name the folder of its query encoder (--encoder"),
        (["--retriever_name", "bm25"], "does not fit"),
        (["--encoder_path", "{w}/nowhere"], "nowhere: no such folder"),
        (["--encoder_path", "{w}/index"], "not an encoder"),
    ],
)
def test_bad_input_is_a_sentence_and_code_two(world: Path, flags: list[str], sentence: str) -> None:
    filled = [flag.format(w=world) for flag in ["--index_path", "{w}/index", *flags]]
    code, _, said = refusal(["--port", "0", *filled])
    assert code == 2
    assert sentence in said
