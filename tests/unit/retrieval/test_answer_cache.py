"""Answers on disk: what is found, what must never be, and what happens to foreign files."""

import json
import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convsearch.errors import DataError, MissingFileError
from convsearch.retrieval.cache import AnswerCache
from convsearch.retrieval.questions import Kind, Question
from convsearch.retrieval.transport import Source

ONE = Source("index-1", "qrels-1")


def question(**changes) -> Question:
    values = {"kind": Kind.RANK, "query": "amber", "about": ("d1", "d2"), "topk": 10}
    return Question(**{**values, **changes})


def test_answers_are_found_again_also_by_another_object(tmp_path: Path) -> None:
    keys = [question(query=f"q{i}").key(ONE) for i in range(1200)]
    with AnswerCache(tmp_path / "a" / "cache.db") as cache:
        cache.put({key: None if i % 3 else i for i, key in enumerate(keys)})
    with AnswerCache(tmp_path / "a" / "cache.db") as cache:
        assert len(cache) == 1200
        assert cache.get(keys) == {i: None if i % 3 else i for i in range(1200)}
        assert cache.get([question(query="never asked").key(ONE), keys[3]]) == {1: 3}


@pytest.mark.parametrize(
    "other",
    [
        question(query="Amber"),
        question(about=("d1",)),
        question(topk=11),
        question(kind=Kind.SEARCH),
        question(kind=Kind.RANK_BY_QID),
    ],
)
def test_whatever_the_answer_depends_on_is_in_the_key(tmp_path: Path, other: Question) -> None:
    with AnswerCache(tmp_path / "cache.db") as cache:
        cache.put({question().key(ONE): 1})
        assert cache.get([other.key(ONE)]) == {}
        assert cache.get([question().key(Source("index-2", "qrels-1"))]) == {}
        assert cache.get([question(about=("d2", "d1", "d1")).key(ONE)]) == {0: 1}


def test_qrels_matter_where_they_say_what_is_gold() -> None:
    changed = Source("index-1", "qrels-2")
    by_qid = question(kind=Kind.RANK_BY_QID, about=("q7",))
    assert by_qid.key(ONE) != by_qid.key(changed)
    assert question().key(ONE) == question().key(changed)


def test_export_and_load_carry_everything(tmp_path: Path) -> None:
    answers = {
        question().key(ONE): 3,
        question(query="\u00fc \u4e2d\n").key(ONE): None,
        question(kind=Kind.SEARCH, about=()).key(ONE): [["d1", 0.5]],
    }
    with AnswerCache(tmp_path / "one.db") as one, AnswerCache(tmp_path / "two.db") as two:
        one.put(answers)
        assert one.export(tmp_path / "out.jsonl.gz") == 3
        assert one.export(tmp_path / "out.jsonl") == 3
        assert two.load(tmp_path / "out.jsonl") == 3
        assert two.get([*answers]) == dict(enumerate(answers.values()))
        two.export(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    record = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert set(record) == {"key", "answer"}


def test_a_bad_line_takes_nothing_in(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    with AnswerCache(tmp_path / "cache.db") as cache:
        for bad in (b'{"key": ["b"]}', b'{"key": ["b"], "answer": NaN}', b'{"key": ["\xff"]}'):
            path.write_bytes(b'{"key": ["a"], "answer": 1}\n' + bad + b"\n")
            with pytest.raises(DataError, match=r"bad\.jsonl:2: not a line"):
                cache.load(path)
        with pytest.raises(MissingFileError, match="no such file"):
            cache.load(tmp_path / "none.jsonl")
        assert len(cache) == 0


def test_files_that_are_something_else_are_left_alone(tmp_path: Path) -> None:
    text, foreign = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("my notes, longer than the header of a database, " * 20)
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE precious (x)")
    database.close()
    for path in (text, foreign):
        before = path.read_bytes()
        with pytest.raises(DataError, match="not a usable cache"):
            AnswerCache(path)
        assert path.read_bytes() == before


def test_threads_share_it(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "cache.db") as cache, ThreadPoolExecutor(8) as pool:

        def work(i: int) -> dict[int, object]:
            key = question(query=f"q{i % 10}").key(ONE)
            cache.put({key: i % 10})
            return cache.get([key])

        assert [*pool.map(work, range(200))] == [{0: i % 10} for i in range(200)]


def _fill(path: Path, start: int) -> None:
    with AnswerCache(path) as cache:
        for i in range(start, start + 20):
            cache.put({question(query=f"q{i}").key(ONE): i})


def test_processes_share_it(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    context = multiprocessing.get_context("fork")
    with AnswerCache(path) as cache:
        children = [context.Process(target=_fill, args=(path, 20 * n)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        found = cache.get([question(query=f"q{i}").key(ONE) for i in range(60)])
    assert found == {i: i for i in range(60)}


def test_after_a_failed_write_the_next_one_works(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    keys = [question(query=f"q{i}").key(ONE) for i in range(3)]
    with AnswerCache(path) as cache:
        cache.put({keys[0]: 1})
        with sqlite3.connect(path) as other:
            refuse = (
                "CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE({}, 'full'); END"
            )
            other.execute(refuse.format("FAIL"))  # the transaction stays open, as on a full disk
        with pytest.raises(DataError, match="full"):
            cache.put({keys[1]: 2})
        with sqlite3.connect(path) as other:
            other.execute("DROP TRIGGER full")
        cache.put({keys[2]: 3})
        assert cache.get(keys) == {0: 1, 2: 3}


def test_an_answer_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with AnswerCache(path) as cache:
        cache.put({("key",): 1})
        with sqlite3.connect(path) as database:
            database.execute("UPDATE answers SET answer = '{'")
        database.close()
        with pytest.raises(DataError, match=r"cache\.db: not a usable cache"):
            cache.get([("key",)])
