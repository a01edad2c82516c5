"""The BM25 index and engine: exact by definition, equal to two others, safe to build."""

import json
import random
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_corpus import WORDS, random_passages, random_queries, write_corpus

from convsearch.errors import ConfigError, ConvsearchError, DataError, MissingFileError
from convsearch.retrieval import Retriever
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage
from retriever_server.analyzer import Analyzer
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.bm25.arrays import Bm25Arrays
from retriever_server.indexing.bm25 import build_bm25_index

PASSAGES = random_passages(400)
DEPTHS = (1, 10, 1000)


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bm25")
    build_bm25_index(write_corpus(folder, PASSAGES), folder / "index")
    return folder / "index"


@pytest.fixture(scope="module")
def engine(index_dir: Path) -> Bm25Backend:
    return Bm25Backend.load(index_dir)


def _golds(num_queries: int, seed: int = 3) -> list[list[str]]:
    rng = random.Random(seed)
    return [
        [p.doc_id for p in rng.sample(PASSAGES, rng.choice([1, 1, 3]))] for _ in range(num_queries)
    ]


def _brute_rank(scores: dict[str, float], golds: list[str], topk: int) -> int | None:
    """The definition, one passage at a time."""
    ranks = []
    for gold in golds:
        if scores[gold] > 0:
            better = sum(score > scores[gold] for score in scores.values())
            tied = sum(s == scores[gold] and d < gold for d, s in scores.items())
            ranks.append(1 + better + tied)
    return min(ranks) if ranks and min(ranks) <= topk else None


def test_ranks_are_exact_by_definition(engine: Bm25Backend) -> None:
    assert isinstance(engine, Retriever)
    other = InMemoryRetriever(PASSAGES, analyze=Analyzer())
    queries, ties = random_queries(60), 0
    golds = _golds(len(queries))
    for depth in DEPTHS:
        ranks = engine.ranks(queries, golds, depth)
        for query, gold, rank in zip(queries, golds, ranks, strict=True):
            scores = dict.fromkeys((passage.doc_id for passage in PASSAGES), 0.0)
            scores |= {hit.doc_id: hit.score for hit in other.search([query], len(scores))[0]}
            ties += len(scores) - len(set(scores.values()))
            assert rank == _brute_rank(scores, gold, depth)
    assert ties > 1000, "the corpus must have ties, or this test proves little"


def test_an_independent_implementation_gives_the_same_lists(engine: Bm25Backend) -> None:
    other = InMemoryRetriever(PASSAGES, analyze=Analyzer())
    queries = random_queries(25, seed=5)
    golds = _golds(len(queries), seed=6)
    for depth in DEPTHS:
        assert engine.search(queries, depth) == other.search(queries, depth)
        assert engine.ranks(queries, golds, depth) == other.ranks(queries, golds, depth)


def test_search_and_ranks_agree_on_every_passage(engine: Bm25Backend) -> None:
    for query in random_queries(2, seed=7):
        [hits] = engine.search([query], len(PASSAGES))
        ids = [hit.doc_id for hit in hits]
        golds = [[p.doc_id] for p in PASSAGES]
        ranks = engine.ranks([query] * len(golds), golds, len(PASSAGES))
        assert ranks == [ids.index(g) + 1 if g in ids else None for [g] in golds]


def test_repeated_words_count_as_often_as_they_occur(engine: Bm25Backend) -> None:
    def scores(query: str) -> dict[str, float]:
        return {hit.doc_id: hit.score for hit in engine.search([query], len(PASSAGES))[0]}

    amber, falcon, both = scores("amber"), scores("falcon"), scores("amber amber amber falcon")
    assert set(both) == set(amber) | set(falcon)
    for doc_id, score in both.items():
        expected = 3 * amber.get(doc_id, 0) + falcon.get(doc_id, 0)
        assert score == pytest.approx(expected, rel=1e-6)


def test_the_order_of_words_changes_nothing(engine: Bm25Backend) -> None:
    words = random_queries(1, seed=11)[0].split() + WORDS
    shuffled = random.Random(0).sample(words, len(words))
    assert engine.search([" ".join(words)], 400) == engine.search([" ".join(shuffled)], 400)


def test_blank_and_unknown_queries_match_nothing(engine: Bm25Backend) -> None:
    queries = ["", "   ", "xyzzy", "the of and", "?!"]
    assert engine.ranks(queries, [["p0"]] * 5, 100) == [None] * 5
    assert engine.search(queries, 100) == [[]] * 5
    assert engine.ranks([], [], 100) == []


def test_a_hundred_thousand_characters_are_a_query_like_any_other(engine: Bm25Backend) -> None:
    words = random.Random(1).choices([*WORDS, "unknown"], k=20_000)
    long = " ".join(words)[:100_000].rsplit(" ", 1)[0]
    assert len(long) > 99_000
    counts = Counter(long.split())
    other = InMemoryRetriever(PASSAGES, analyze=Analyzer())
    assert counts["amber"] > 100
    assert engine.search([long], 50) == other.search([long], 50)


def test_one_question_eight_ways_gives_eight_ranks(engine: Bm25Backend) -> None:
    queries, golds = random_queries(8, seed=2), [["p7"]] * 8
    alone = [engine.ranks([q], [g], 400)[0] for q, g in zip(queries, golds, strict=True)]
    assert engine.ranks(queries, golds, 400) == alone
    assert len(set(alone)) > 3


def test_sixteen_threads_give_what_one_gives(engine: Bm25Backend) -> None:
    queries, golds = random_queries(64, seed=8), _golds(64, seed=9)
    serial = [engine.ranks([q], [g], 100)[0] for q, g in zip(queries, golds, strict=True)]
    with ThreadPoolExecutor(16) as pool:
        parallel = list(
            pool.map(lambda i: engine.ranks([queries[i % 64]], [golds[i % 64]], 100)[0], range(640))
        )
    assert parallel == serial * 10


def test_passages_come_back_whole(engine: Bm25Backend) -> None:
    wanted = [PASSAGES[i] for i in (5, 0, 399, 5)]
    assert engine.passages([p.doc_id for p in wanted]) == wanted
    with pytest.raises(DataError, match="'nope' is not in the index"):
        engine.passages(["nope"])
    with pytest.raises(DataError, match="'nope' is not in the index"):
        engine.ranks(["amber"], [["nope"]], 10)


def test_odd_passages_survive_the_index(tmp_path: Path) -> None:
    odd = [
        Passage(doc_id="z", title='a "quoted"\ttitle', text="line\u2028separator \n newline amber"),
        Passage(doc_id="é%20/1", title="", text=""),
        Passage(doc_id="m", title="the", text="of"),
        Passage(doc_id="long", title="", text="amber " * 50_000),
    ]
    build_bm25_index(write_corpus(tmp_path, odd), tmp_path / "index")
    engine = Bm25Backend.load(tmp_path / "index")
    assert engine.passages([p.doc_id for p in odd]) == odd
    assert {hit.doc_id for hit in engine.search(["amber"], 10)[0]} == {"z", "long"}


def test_the_manifest_tells_what_was_built(index_dir: Path, tmp_path: Path) -> None:
    manifest = json.loads((index_dir / "manifest.json").read_text())
    assert {k: manifest[k] for k in ("engine", "num_passages", "k1", "b", "format_version")} == {
        "engine": "bm25",
        "num_passages": 400,
        "k1": 0.9,
        "b": 0.4,
        "format_version": 1,
    }
    assert len(manifest["corpus_sha256"]) == 64
    corpus = write_corpus(tmp_path, PASSAGES)
    build_bm25_index(corpus, tmp_path / "again")
    build_bm25_index(corpus, tmp_path / "other", k1=1.2, b=0.75)
    same, other = (Bm25Backend.load(tmp_path / name).info for name in ("again", "other"))
    assert same == Bm25Backend.load(index_dir).info
    assert same.fingerprint != other.fingerprint


def test_the_same_corpus_gives_the_same_bytes(index_dir: Path, tmp_path: Path) -> None:
    build_bm25_index(write_corpus(tmp_path, PASSAGES), tmp_path / "again")
    names = sorted(p.name for p in index_dir.iterdir())
    assert names == sorted(p.name for p in (tmp_path / "again").iterdir())
    for name in names:
        if name != "run.json":  # has the time of making
            assert (index_dir / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_parameters_change_scores_as_in_the_formula(tmp_path: Path) -> None:
    build_bm25_index(write_corpus(tmp_path, PASSAGES), tmp_path / "index", k1=1.5, b=0.9)
    other = InMemoryRetriever(PASSAGES, 1.5, 0.9, analyze=Analyzer())
    queries = random_queries(20, seed=4)
    assert Bm25Backend.load(tmp_path / "index").search(queries, 50) == other.search(queries, 50)


GOOD = '{"doc_id": "a", "title": "", "text": "amber"}\n'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "empty"),
        (GOOD + "{oops\n", "corpus.jsonl:2: not valid JSON"),
        (GOOD + GOOD, "corpus.jsonl:2: doc_id 'a' occurs twice, first in line 1"),
        (
            GOOD + '{"doc_id": "b", "title": 3, "text": ""}\n',
            'corpus.jsonl:2: field "title" must be',
        ),
        (GOOD + '{"doc_id": "b", "text": ""}\n', 'corpus.jsonl:2: field "title" is missing'),
        ('{"doc_id": "a", "title": "the", "text": "?"}\n', "no passage holds a word"),
    ],
)
def test_a_bad_corpus_is_named_and_leaves_nothing(
    tmp_path: Path, content: str, sentence: str
) -> None:
    (tmp_path / "corpus.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        build_bm25_index(tmp_path / "corpus.jsonl", tmp_path / "index")
    assert sentence in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_a_failed_build_leaves_the_old_index_alone(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, PASSAGES[:5])
    build_bm25_index(corpus, tmp_path / "index")
    before = Bm25Backend.load(tmp_path / "index").info
    corpus.write_text(GOOD + "{oops\n")
    with pytest.raises(DataError):
        build_bm25_index(corpus, tmp_path / "index")
    assert Bm25Backend.load(tmp_path / "index").info == before
    corpus.write_text(GOOD)
    build_bm25_index(corpus, tmp_path / "index")
    assert Bm25Backend.load(tmp_path / "index").info.num_passages == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus.jsonl", "index"]


def test_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, PASSAGES[:5])
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not an index"):
        build_bm25_index(corpus, tmp_path / "thesis")
    with pytest.raises(ConfigError, match="exists and is not an index"):
        build_bm25_index(corpus, corpus)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    assert corpus.is_file()


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.4), (0.9, 1.1), (float("nan"), 0.4)])
def test_impossible_parameters_are_refused(tmp_path: Path, k1: float, b: float) -> None:
    with pytest.raises(ConfigError, match="BM25 needs k1"):
        build_bm25_index(write_corpus(tmp_path, PASSAGES[:5]), tmp_path / "index", k1=k1, b=b)


def test_a_missing_corpus_or_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.jsonl: no such file"):
        build_bm25_index(tmp_path / "nowhere.jsonl", tmp_path / "index")
    with pytest.raises(MissingFileError, match="not an index folder"):
        Bm25Backend.load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "passages.jsonl",
        "offsets.npy",
        "doc_ids.txt",
        "doc_id_offsets.npy",
        "id_order.npy",
        "id_hashes.npy",
        "id_positions.npy",
        *(f"{name}.npy" for name in Bm25Arrays._fields),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "remove", "garbage"])
def test_a_damaged_index_is_refused_with_the_next_step(
    index_dir: Path, tmp_path: Path, name: str, damage: str
) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    content = (copy / name).read_bytes()
    if damage == "remove":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content[: len(content) // 2] if damage == "cut" else b"\x00{]")
    with pytest.raises(ConvsearchError, match="convsearch index"):
        Bm25Backend.load(copy)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("format_version", 2, "format version 2"),
        ("format", "other", "not a manifest of this project"),
        ("engine", "dense", "this is a dense index"),
        ("analyzer", "lucene-english/0", "made with analyzer"),
        ("num_passages", "many", "'num_passages' must be int"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    index_dir: Path, tmp_path: Path, field: str, value: object, sentence: str
) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(DataError, match=sentence):
        Bm25Backend.load(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_tokens", 7), ("num_searchable", 0), ("k1", 0.8), ("files", {}), ("num_passages", -1)],
)
def test_a_number_of_the_manifest_that_changed_is_refused(
    index_dir: Path, tmp_path: Path, field: str, value: object
) -> None:
    """Each of them decides ranks, and no other file says what it was."""
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(DataError, match=r"manifest\.json: not what was written; copy it again"):
        Bm25Backend.load(copy)
    del manifest["facts_sha256"]  # as of an older program
    manifest["files"] = {"docs.npy": 5}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"no size and hash of 'docs\.npy'"):
        Bm25Backend.load(copy)
