"""Words before queries and passages: in the manifest, and never left out by who opens the index."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_corpus import make_tiny_sentence_model, random_passages, random_queries, write_corpus
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import CheckpointError, ConfigError, DataError
from retriever_server.backends.dense import DenseBackend
from retriever_server.backends.encoder import load_encoder
from retriever_server.backends.prefixes import Prefixes, with_prefixes
from retriever_server.dense.formats import decode
from retriever_server.indexing.dense import build_dense_index, passage_text
from retriever_server.indexing.dense_job import VECTORS

PASSAGES = random_passages(20)
WORDS = next(text for text in random_queries(40) if len(text.split()) > 1).split()
QUERY, PASSAGE = f"{WORDS[0]} ", f"{WORDS[1]} "


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder`, `corpus.jsonl`, and `index` made with prefixes by the command."""
    folder = tmp_path_factory.mktemp("prefixes")
    make_tiny_sentence_model(folder / "encoder")
    write_corpus(folder, PASSAGES)
    done = CliRunner().invoke(app, words(folder, "index"))
    assert done.exit_code == 0, (done.output, done.exception)
    return folder


def words(folder: Path, out: str, *more: str, engine: str = "dense") -> list[str]:
    return [
        "index", "--corpus", str(folder / "corpus.jsonl"), "--out", str(folder / out),
        "--engine", engine, "--encoder", str(folder / "encoder"), "--dtype", "float32",
        "--query-prefix", QUERY, "--passage-prefix", PASSAGE, *more,
    ]  # fmt: skip


def test_both_prefixes_are_in_the_manifest_and_in_the_vectors(world: Path) -> None:
    manifest = json.loads((world / "index" / "manifest.json").read_text())
    assert (manifest["query_prefix"], manifest["passage_prefix"]) == (QUERY, PASSAGE)
    plain = load_encoder(world / "encoder")
    options = {"max_length": 384, "batch_size": 32}
    texts = [passage_text(p) for p in PASSAGES]
    wanted = plain.encode([PASSAGE + t for t in texts], is_query=False, **options)
    bare = plain.encode(texts, is_query=False, **options)
    stored = decode(np.load(next((world / "index" / VECTORS).glob("0*.npy"))), "float32")
    np.testing.assert_allclose(stored, wanted, atol=1e-5)
    assert np.abs(stored - bare).max() > 1e-2


def test_a_query_is_encoded_with_its_prefix_without_a_word_from_the_caller(world: Path) -> None:
    engine = DenseBackend.load_exact(world / "index", world / "encoder")
    plain = load_encoder(world / "encoder")
    query = random_queries(1)[0]
    wanted = plain.encode([QUERY + query], is_query=True, max_length=64, batch_size=1)
    np.testing.assert_allclose(engine.encode([query]), wanted, atol=1e-5)
    assert engine.search(["?!"], 3) == [[]], "the prefix alone is no query"


def test_an_index_without_prefixes_is_as_before(world: Path) -> None:
    index = world / "plain"
    build_dense_index(world / "corpus.jsonl", index, encoder_path=world / "encoder")
    assert "query_prefix" not in json.loads((index / "manifest.json").read_text())
    with_them = DenseBackend.load(world / "index", world / "encoder")
    assert DenseBackend.load(index, world / "encoder").info.fingerprint != (
        with_them.info.fingerprint
    )


def test_what_does_not_fit_is_told(world: Path, tmp_path: Path) -> None:
    encoder, prefixes = load_encoder(world / "encoder"), Prefixes(query=QUERY)
    config = tmp_path / "config_sentence_transformers.json"
    config.write_text(json.dumps({"prompts": {"query": "", "document": ""}}))
    assert with_prefixes(encoder, prefixes, tmp_path).dim == encoder.dim
    config.write_text(json.dumps({"prompts": {"query": "query: "}}))
    with pytest.raises(ConfigError, match="prompts of its own"):
        with_prefixes(encoder, prefixes, tmp_path)
    assert with_prefixes(encoder, Prefixes(), tmp_path) is encoder
    config.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        with_prefixes(encoder, prefixes, tmp_path)
    with pytest.raises(
        ConfigError, match="not for a bm25 index; leave it out, or say --engine dense"
    ):
        CliRunner().invoke(app, words(world, "other", engine="bm25"), catch_exceptions=False)
    path = world / "index" / "manifest.json"
    kept = path.read_text()
    path.write_text(kept.replace(json.dumps(QUERY), "7"))
    with pytest.raises(DataError, match="must be texts"):
        DenseBackend.load(world / "index", world / "encoder")
    path.write_text(kept)
