"""Approximate search: measured before use, lists and ranks agree, exactness comes back."""

import json
import shutil
from pathlib import Path

import pytest
from small_corpus import make_tiny_sentence_model, random_passages, random_queries, write_corpus

from convsearch.errors import ConfigError, DataError, EngineError
from convsearch.retrieval import Retriever
from retriever_server.backends.ann import AnnBackend
from retriever_server.backends.dense import DenseBackend
from retriever_server.dense.ann import RankError, rank_error
from retriever_server.indexing.ann import build_ann_index
from retriever_server.indexing.dense import build_dense_index

PASSAGES = random_passages(600)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and an exact `index`."""
    folder = tmp_path_factory.mktemp("ann")
    make_tiny_sentence_model(folder / "encoder")
    corpus = write_corpus(folder, PASSAGES)
    build_dense_index(corpus, folder / "index", encoder_path=folder / "encoder")
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "world")
    return tmp_path / "world"


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW16", "PQ12x4", "IVF16,SQ8"])
def test_lists_and_ranks_agree(world: Path, factory: str) -> None:
    search = "nprobe=4" if factory.startswith("IVF") else ""
    build_ann_index(
        world / "index", encoder_path=world / "encoder", factory=factory, searches=[search]
    )
    engine = DenseBackend.load(world / "index", world / "encoder")
    assert isinstance(engine, AnnBackend)
    assert isinstance(engine, Retriever)
    queries = ["", *random_queries(20)]
    golds = [[PASSAGES[7].doc_id, PASSAGES[8].doc_id]] * 21
    lists = [[hit.doc_id for hit in hits] for hits in engine.search(queries, 50)]
    assert lists[0] == []
    expected = [
        next((place for place, doc_id in enumerate(found, 1) if doc_id in gold), None)
        for found, gold in zip(lists, golds, strict=True)
    ]
    assert engine.ranks(queries, golds, 50) == expected
    assert engine.passages(["p3"])[0].doc_id == "p3"


def test_the_error_is_measured_and_falls_with_effort(world: Path) -> None:
    exact = DenseBackend.load_exact(world / "index", world / "encoder")
    coarse, full = build_ann_index(
        world / "index", encoder_path=world / "encoder", factory="IVF32,Flat",
        searches=["nprobe=1", "nprobe=32"], num_samples=200,
    )  # fmt: skip
    assert full.equal == 1.0
    assert full.missed == 0.0
    assert coarse.equal < 1.0
    assert coarse.num_queries == 200
    card = json.loads((world / "index" / "ann" / "ann.json").read_text())
    assert card["rank_error"]["search"] == card["search"] == "nprobe=32"
    ann = DenseBackend.load(world / "index", world / "encoder")
    assert (ann.info.engine, exact.info.engine) == ("dense-ann", "dense")
    assert ann.info.fingerprint != exact.info.fingerprint
    queries = random_queries(10)
    assert ann.search(queries, 20) == exact.search(queries, 20)
    shutil.rmtree(world / "index" / "ann")
    assert isinstance(DenseBackend.load(world / "index", world / "encoder"), DenseBackend)


def test_given_questions_are_what_is_measured(world: Path) -> None:
    queries = [(query, [PASSAGES[3].doc_id]) for query in random_queries(7)]
    (error,) = build_ann_index(
        world / "index", encoder_path=world / "encoder", factory="Flat", searches=[""],
        queries=queries,
    )  # fmt: skip
    assert (error.num_queries, error.equal) == (7, 1.0)


@pytest.mark.parametrize(
    ("factory", "search", "sentence"),
    [
        ("NONSENSE", "", "cannot build 'NONSENSE'"),
        ("IVF5000,Flat", "", "cannot build"),
        ("IVF16,Flat", "efSearch=3", "do not fit"),
    ],
)
def test_bad_settings_are_sentences(world: Path, factory: str, search: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_ann_index(
            world / "index", encoder_path=world / "encoder", factory=factory, searches=[search]
        )
    assert not [*(world / "index").glob("ann*")]


def test_a_setting_that_fails_only_in_a_search_is_a_sentence(world: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot search with 'nprobe=-1'"):
        build_ann_index(
            world / "index", encoder_path=world / "encoder", factory="IVF4,Flat",
            searches=["nprobe=-1"],
        )  # fmt: skip
    assert not (world / "index" / "ann").exists()
    found: list[int] = []
    build_ann_index(
        world / "index", encoder_path=world / "encoder", factory="IVF4,Flat", searches=["nprobe=2"],
        on_resume=found.append,
    )  # fmt: skip
    assert found == [len(PASSAGES)], "it is not built again for that"


def test_what_is_measured_is_what_is_opened(world: Path) -> None:
    whole, last = build_ann_index(
        world / "index", encoder_path=world / "encoder", factory="IVF32,Flat",
        searches=["nprobe=32", ""], num_samples=200,
    )  # fmt: skip
    assert whole.equal == 1.0
    assert last.equal < 1.0, "nprobe=32 does not outlive its turn"


@pytest.mark.parametrize("harm", ["index", "card", "search", "vectors"])
def test_damage_is_refused(world: Path, harm: str) -> None:
    build_ann_index(world / "index", encoder_path=world / "encoder", factory="Flat", searches=[""])
    folder = world / "index" / "ann"
    if harm == "index":
        data = bytearray((folder / "index.faiss").read_bytes())
        data[-1] ^= 1
        (folder / "index.faiss").write_bytes(data)
    elif harm == "card":
        card = json.loads((folder / "ann.json").read_text())
        del card["rank_error"]
        (folder / "ann.json").write_text(json.dumps(card))
    elif harm == "search":
        card = json.loads((folder / "ann.json").read_text())
        (folder / "ann.json").write_text(json.dumps({**card, "search": 5}))
    else:
        path = world / "index" / "vectors" / "vectors.json"
        path.write_text(path.read_text() + "\n")
    with pytest.raises(DataError, match="convsearch ann"):
        DenseBackend.load(world / "index", world / "encoder")


def test_what_the_figures_mean() -> None:
    error = rank_error(
        [1, 5, None, 7, 9], [1, 3, 8, None, 9], search="", topk=10, queries_per_s=1,
        exact_queries_per_s=1,
    )  # fmt: skip
    assert (error.equal, error.missed) == (0.4, 0.25)
    assert error.mean_shift == pytest.approx(2 / 3)


def test_an_approximate_index_of_other_settings_is_refused(world: Path) -> None:
    def build(factory: str, search: str, *, keep: bool = True) -> list[RankError]:
        return build_ann_index(
            world / "index", encoder_path=world / "encoder", factory=factory, searches=[search],
            num_samples=20, keep=keep,
        )  # fmt: skip

    made = build("IVF4,Flat", "nprobe=2", keep=False)
    card = world / "index" / "ann" / "ann.json"
    before = card.stat().st_mtime_ns
    assert build("IVF4,Flat", "nprobe=2") == made
    for words, sentence in (
        (("Flat", ""), r"factory \(there 'IVF4,Flat', now 'Flat'\)"),
        (("IVF4,Flat", "nprobe=4"), r"search \(there 'nprobe=2', now 'nprobe=4'\)"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            build(*words)
    assert card.stat().st_mtime_ns == before
    build("Flat", "", keep=False)
    assert json.loads(card.read_text())["factory"] == "Flat"
    shutil.rmtree(card.parent)
