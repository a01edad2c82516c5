"""Exact dense ranks and lists against double-precision brute force, over both kinds of encoders."""

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_corpus import (
    make_tiny_ance,
    make_tiny_sentence_model,
    random_passages,
    random_queries,
    write_corpus,
)

from convsearch.errors import CheckpointError, ConfigError, DataError, MissingFileError
from convsearch.retrieval import Retriever
from retriever_server.backends import dense
from retriever_server.backends.ance import AnceEncoder
from retriever_server.backends.dense import DenseBackend
from retriever_server.backends.encoder import load_encoder
from retriever_server.dense import forecast
from retriever_server.dense.formats import decode
from retriever_server.indexing.dense import build_dense_index, ids_at, passage_text
from retriever_server.indexing.dense_job import VECTORS
from retriever_server.loading import load_backend
from retriever_server.settings import IndexSettings
from retriever_server.store import STORE_FILES

PASSAGES = random_passages(150)
TEXTS = [passage_text(p) for p in PASSAGES]


@pytest.fixture(scope="module", params=["ance", "sentence-transformers"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and `index`."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "ance":
        make_tiny_ance(folder / "encoder")
    else:
        make_tiny_sentence_model(folder / "encoder")
    build_dense_index(
        write_corpus(folder, PASSAGES),
        folder / "index",
        encoder_path=folder / "encoder",
        batch_size=16,
        shard_rows=64,
    )
    return folder


@pytest.fixture(scope="module")
def engine(world: Path) -> DenseBackend:
    return DenseBackend.load_exact(world / "index", world / "encoder")


def _orders(engine: DenseBackend, queries: list[str]) -> list[list[str]]:
    """Ids of all passages for each query by double-precision scores, ties by id."""
    raw = [np.load(path) for path in sorted((engine_dir(engine) / VECTORS).glob("0*.npy"))]
    vectors = decode(np.concatenate(raw), "bfloat16").astype(np.float64)
    encoded = engine.encode(queries).astype(np.float64)
    ids, orders = ids_at(engine.store, range(len(engine.store))), []
    for query in encoded:
        scores = (vectors * query).sum(axis=1)
        orders.append([ids[i] for i in sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))])
    return orders


def engine_dir(engine: DenseBackend) -> Path:
    return engine.vectors.folder.parent


def test_ranks_and_lists_are_exact_ties_included(engine: DenseBackend) -> None:
    assert isinstance(engine, Retriever)
    assert len(set(TEXTS)) < len(TEXTS), "the corpus must have equal passages for ties"
    queries, rng = random_queries(30), random.Random(1)
    golds = [[p.doc_id for p in rng.sample(PASSAGES, rng.choice([1, 3]))] for _ in queries]
    orders = _orders(engine, queries)
    for depth in (1, 10, 100, 1000):
        expected = []
        for order, gold in zip(orders, golds, strict=True):
            best = min(order.index(g) + 1 for g in gold)
            expected.append(best if best <= depth else None)
        assert engine.ranks(queries, golds, depth) == expected
        lists = [[hit.doc_id for hit in hits] for hits in engine.search(queries, depth)]
        assert lists == [order[:depth] for order in orders]


def test_the_gold_does_not_compete_with_itself(engine: DenseBackend) -> None:
    queries = random_queries(20, seed=2)
    tops = [hits[0].doc_id for hits in engine.search(queries, 1)]
    assert engine.ranks(queries, [[top] for top in tops], 100) == [1] * 20


def test_batches_and_threads_change_nothing(engine: DenseBackend) -> None:
    queries, rng = random_queries(32, seed=3), random.Random(2)
    golds = [[rng.choice(PASSAGES).doc_id] for _ in queries]
    singles = [engine.ranks([q], [g], 150)[0] for q, g in zip(queries, golds, strict=True)]
    assert engine.ranks(queries, golds, 150) == singles
    with ThreadPoolExecutor(16) as pool:
        parallel = list(
            pool.map(lambda i: engine.ranks([queries[i % 32]], [golds[i % 32]], 150)[0], range(96))
        )
    assert parallel == singles * 3


def test_one_question_eight_ways_gives_eight_ranks(engine: DenseBackend) -> None:
    queries, golds = random_queries(8, seed=4), [["p7"]] * 8
    together = engine.ranks(queries, golds, 150)
    assert together == [engine.ranks([q], [["p7"]], 150)[0] for q in queries]
    assert len(set(together)) > 3


def test_blank_queries_match_nothing(engine: DenseBackend) -> None:
    assert engine.ranks(["", " ?! ", "amber"], [["p0"]] * 3, 150)[:2] == [None, None]
    assert engine.search(["", "amber"], 2)[0] == []
    assert engine.ranks([], [], 10) == []
    assert engine.ranks(["amber " * 20_000], [["p0"]], 150) != [None]


def test_queries_are_cut_where_the_caller_says(engine: DenseBackend) -> None:
    head = "amber birch castle"
    short = engine.with_query_length(5)  # three words and the two marks around them
    assert short.search([f"{head} falcon garden harbor"], 20) == short.search([head], 20)
    assert engine.search([f"{head} falcon garden harbor"], 20) != engine.search([head], 20)
    assert engine.with_query_length(100_000).search([head], 5) == engine.search([head], 5)


def test_unknown_gold_is_refused(engine: DenseBackend) -> None:
    with pytest.raises(DataError, match="'nope' is not in the index"):
        engine.ranks(["amber"], [["nope"]], 10)
    assert engine.passages(["p3"])[0].doc_id == "p3"


def test_ance_is_first_token_linear_and_norm(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, RobertaForSequenceClassification

    folder = make_tiny_ance(tmp_path / "ance")
    weights = load_file(folder / "model.safetensors")
    reference = RobertaForSequenceClassification.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(["amber falcon"], return_tensors="pt")
    with torch.inference_mode():
        first = reference.roberta(**tokens).last_hidden_state[:, 0]
        expected = torch.nn.functional.layer_norm(
            first @ weights["embeddingHead.weight"].T + weights["embeddingHead.bias"],
            (768,),
            weights["norm.weight"],
            weights["norm.bias"],
        )
    got = AnceEncoder(folder).encode(["amber falcon"], is_query=True, max_length=64, batch_size=4)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["embeddingHead.", "norm.bias", "roberta.encoder.layer.0.output."])
def test_an_ance_checkpoint_without_a_weight_is_refused(tmp_path: Path, part: str) -> None:
    folder = make_tiny_ance(tmp_path / "ance", leave_out=part)
    with pytest.raises(CheckpointError, match="not in the checkpoint"):
        load_encoder(folder)


def test_an_old_style_ance_checkpoint_loads(tmp_path: Path) -> None:
    """The published one is a pickle of 2020 that also holds position ids."""
    folder = make_tiny_ance(tmp_path / "ance")
    before = load_encoder(folder).encode(["amber"], is_query=True, max_length=8, batch_size=1)
    weights = load_file(folder / "model.safetensors")
    weights["roberta.embeddings.position_ids"] = torch.arange(130)[None]
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    after = load_encoder(folder).encode(["amber"], is_query=True, max_length=8, batch_size=1)
    assert np.array_equal(before, after)


def test_a_sentence_model_without_a_weight_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_sentence_model(tmp_path / "st")
    assert load_encoder(folder).dim == 24
    path = next(p for p in sorted(folder.rglob("model.safetensors")) if p.stat().st_size > 9000)
    weights = load_file(path)
    name = next(n for n in weights if n.endswith("layer.0.output.dense.weight"))
    save_file({k: v for k, v in weights.items() if k != name}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not in the checkpoint"):
        load_encoder(folder)


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _another_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2"}')


def _bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{oops")


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _small_vocabulary(folder: Path) -> None:
    """A model of five tokens beside a tokenizer of twenty-four."""
    weights = load_file(folder / "model.safetensors")
    name = "roberta.embeddings.word_embeddings.weight"
    save_file(
        {**weights, name: weights[name][:5].clone()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))


@pytest.mark.parametrize(
    ("harm", "error", "sentence"),
    [
        (_no_folder, MissingFileError, "no such folder"),
        (_empty, CheckpointError, "not an encoder"),
        (_another_model, CheckpointError, "model_type is 'qwen2'"),
        (_bad_config, CheckpointError, "not valid JSON"),
        (_cut_weights, CheckpointError, "does not load"),
        (_no_weights, CheckpointError, "does not load"),
        (_other_shape, CheckpointError, "does not load"),
        (_no_tokenizer, CheckpointError, "no tokenizer in this folder"),
        (_small_vocabulary, CheckpointError, "of different models"),
    ],
)
def test_a_folder_that_is_no_encoder_is_refused(
    tmp_path: Path, harm, error: type[Exception], sentence: str
) -> None:
    folder = make_tiny_ance(tmp_path / "ance")
    harm(folder)
    with pytest.raises(error, match=sentence):
        load_encoder(folder)


def test_an_index_and_an_encoder_of_different_models_do_not_mix(tmp_path: Path) -> None:
    first, second = (make_tiny_ance(tmp_path / f"ance{seed}", seed=seed) for seed in (0, 1))
    corpus = write_corpus(tmp_path, PASSAGES[:5])
    manifest = build_dense_index(corpus, tmp_path / "index", encoder_path=first)
    assert (manifest["dim"], manifest["encoder_kind"]) == (768, "ance")
    with pytest.raises(ConfigError, match="not the encoder that made"):
        DenseBackend.load_exact(tmp_path / "index", second)
    assert DenseBackend.load_exact(tmp_path / "index", first).info.num_passages == 5


def test_a_bad_corpus_or_broken_weights_leave_nothing(tmp_path: Path) -> None:
    encoder = make_tiny_ance(tmp_path / "ance")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"doc_id": "a", "title": "", "text": "x"}\n{"doc_id": "a"}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl:2"):
        build_dense_index(corpus, tmp_path / "index", encoder_path=encoder)
    weights = load_file(encoder / "model.safetensors")
    weights["norm.bias"][0] = float("nan")
    save_file(weights, encoder / "model.safetensors", metadata={"format": "pt"})
    write_corpus(tmp_path, PASSAGES[:5])
    with pytest.raises(CheckpointError, match="not finite"):
        build_dense_index(corpus, tmp_path / "index", encoder_path=encoder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ance", "corpus.jsonl"]


@pytest.mark.parametrize("name", ["00001.npy", "mean.npy", "extents.npy", "vectors.json"])
def test_damaged_vectors_are_refused(world: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(world / "index", tmp_path / "index")
    path = tmp_path / "index" / VECTORS / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="convsearch index"):
        DenseBackend.load_exact(tmp_path / "index", world / "encoder")


@pytest.mark.parametrize("name", STORE_FILES)
def test_damaged_ids_and_passages_are_refused(world: Path, tmp_path: Path, name: str) -> None:
    """One bit: of the order of ids it changes ties, of offsets the passage behind a position."""
    shutil.copytree(world / "index", tmp_path / "index")
    path = tmp_path / "index" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: its content is not what was written"):
        DenseBackend.load_exact(tmp_path / "index", world / "encoder")
    with pytest.raises(DataError, match=f"{name} not what was written"):
        load_backend(
            IndexSettings(
                index_path=tmp_path / "index", encoder_path=world / "encoder", verify=True
            )
        )


def test_vectors_of_another_index_are_refused(world: Path, tmp_path: Path) -> None:
    """Of the same encoder and as many passages: every rank would be of another corpus."""
    shutil.copytree(world / "index", tmp_path / "index")
    path = tmp_path / "index" / VECTORS / "vectors.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(DataError, match="vectors of another index"):
        DenseBackend.load_exact(tmp_path / "index", world / "encoder")


def test_an_index_of_the_first_version_is_refused(world: Path, tmp_path: Path) -> None:
    """It held one float32 file and no folder of vectors."""
    shutil.copytree(world / "index", tmp_path / "index")
    shutil.rmtree(tmp_path / "index" / VECTORS)
    np.save(tmp_path / "index" / "vectors.npy", np.zeros((150, 4), np.float32))
    with pytest.raises(DataError, match=r"older version of this program.*rebuild"):
        DenseBackend.load_exact(tmp_path / "index", world / "encoder")


def test_vectors_of_another_encoder_are_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "index", tmp_path / "index")
    path = tmp_path / "index" / VECTORS / "vectors.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoder_id": "f" * 64}))
    with pytest.raises(DataError, match=r"vectors of encoder ffffffffffff.*rebuild"):
        DenseBackend.load_exact(tmp_path / "index", world / "encoder")


def test_an_index_larger_than_memory_is_refused_before_it_is_read(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "free_bytes", lambda: 1000)
    monkeypatch.setattr(dense, "Vectors", None)
    with pytest.raises(ConfigError, match=r"needs .* of memory, 0\.0 MB free"):
        DenseBackend.load_exact(world / "index", world / "encoder")
