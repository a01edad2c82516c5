"""Embeddings of an earlier project become the index that encoding would have made."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_corpus import make_tiny_sentence_model, random_passages, random_queries, write_corpus

from convsearch.errors import DataError
from convsearch.types import Passage
from retriever_server.backends.dense import DenseBackend
from retriever_server.backends.encoder import load_encoder
from retriever_server.dense.forecast import Forecast
from retriever_server.indexing.dense import build_dense_index, passage_text
from retriever_server.indexing.dense_import import import_dense_index

PASSAGES = [
    Passage(doc_id=str(1000 + i), title=p.title, text=p.text)
    for i, p in enumerate(random_passages(130))
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and `corpus.jsonl`."""
    folder = tmp_path_factory.mktemp("import")
    make_tiny_sentence_model(folder / "encoder")
    write_corpus(folder, PASSAGES)
    return folder


@pytest.fixture(scope="module")
def arrays(world: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and ids as two processes leave them: shuffled, and padded with repeats."""
    texts = [passage_text(passage) for passage in PASSAGES]
    vectors = load_encoder(world / "encoder").encode(
        texts, is_query=False, max_length=384, batch_size=32
    )
    rows = np.concatenate((np.arange(1, 130, 2), np.arange(0, 130, 2), [1, 3, 0]))
    return vectors[rows], np.asarray([1000 + row for row in rows])


def _import(
    world: Path,
    out: Path,
    embeddings: np.ndarray,
    ids: np.ndarray,
    on_forecast: Callable[[Forecast], None] | None = None,
) -> dict[str, object]:
    for name, array in (("doc_emb_cat.pkl", embeddings), ("doc_embid_cat.pkl", ids)):
        with (out.parent / name).open("wb") as file:
            pickle.dump(array, file, protocol=4)
    return import_dense_index(
        world / "corpus.jsonl", out, encoder_path=world / "encoder", shard_rows=50,
        embeddings_path=out.parent / "doc_emb_cat.pkl", ids_path=out.parent / "doc_embid_cat.pkl",
        on_forecast=on_forecast,
    )  # fmt: skip


def test_imported_vectors_are_those_of_the_encoder(world: Path, tmp_path: Path, arrays) -> None:
    said: list[Forecast] = []
    assert _import(world, tmp_path / "imported", *arrays, said.append)["num_passages"] == 130
    written = sum(p.stat().st_size for p in (tmp_path / "imported" / "vectors").glob("*.npy"))
    assert [forecast.vector_bytes for forecast in said] == [pytest.approx(written, rel=0.2)]
    build_dense_index(
        world / "corpus.jsonl", tmp_path / "made", encoder_path=world / "encoder", batch_size=32
    )
    imported, made = (
        DenseBackend.load_exact(tmp_path / name, world / "encoder") for name in ("imported", "made")
    )
    for query in random_queries(10):
        one, other = imported.search([query], 130)[0], made.search([query], 130)[0]
        scores = {hit.doc_id: hit.score for hit in other}
        assert {hit.doc_id for hit in one} == set(scores)
        for hit in one:
            assert hit.score == pytest.approx(scores[hit.doc_id], abs=1e-2)


def test_what_does_not_fit_is_refused_with_its_place(world: Path, tmp_path: Path, arrays) -> None:
    embeddings, ids = arrays
    broken, other = embeddings.copy(), embeddings.copy()
    broken[7, 3], other[-1] = np.nan, -other[-1]
    stranger = ids.copy()
    stranger[5] = 77
    cases = [
        (embeddings[:, :-1], ids, "name the encoder that made it"),
        (embeddings, ids[:-1], "one integer for each"),
        (embeddings, ids.astype(np.float64), "one integer for each"),
        (broken, ids, "row 7 holds numbers that are not finite"),
        (other, ids, "rows 65 and 132 are both of passage 1000"),
        (embeddings, stranger, "row 5 is of passage '77', which is not in the corpus"),
        (embeddings[:60], ids[:60], "70 passages of the corpus have no embedding"),
    ]
    for number, (first, second, sentence) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(DataError, match=sentence):
            _import(world, tmp_path / str(number) / "index", first, second)
        assert not (tmp_path / str(number) / "index").exists()
