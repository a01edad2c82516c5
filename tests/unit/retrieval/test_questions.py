"""The conversation that both clients hold with a server, without any server."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from convsearch.errors import DataError, RetrieverError
from convsearch.retrieval.cache import AnswerCache
from convsearch.retrieval.questions import (
    CHUNK_CHARS,
    CHUNK_QUERIES,
    Asked,
    Question,
    conversation,
    qid_questions,
    rank_questions,
    search_questions,
)
from convsearch.retrieval.transport import Reply, Source
from convsearch.retrieval.wire import MAX_BODY_BYTES

FIRST, SECOND = Source("index-1"), Source("index-2")


def talk(
    questions: Sequence[Question],
    answer: Callable[[Asked], Reply],
    cache: AnswerCache | None = None,
) -> tuple[list[object], list[Asked]]:
    """Answers every request of a conversation; returns its result and the requests."""
    asked: list[Asked] = []
    conversing = conversation(questions, url="http://h", cache=cache)
    try:
        request = next(conversing)
        while True:
            asked.append(request)
            request = conversing.send(answer(request))
    except StopIteration as end:
        return end.value, asked


def lengths(source: Source) -> Callable[[Asked], Reply]:
    """A server whose rank for a query is the query's length."""

    def answer(asked: Asked) -> Reply:
        queries = asked.body["queries"] if asked.body else []
        assert isinstance(queries, list)
        return Reply(result=[len(query) for query in queries], source=source)

    return answer


def test_equal_questions_are_asked_once_and_answered_everywhere() -> None:
    queries = ["aa", "b", "aa", "ccc", "b"]
    golds = [["d1"], ["d1"], ["d1"], ["d1"], ["d2"]]
    found, asked = talk(rank_questions(queries, golds, 10), lengths(FIRST))
    assert found == [2, 1, 2, 3, 1]
    assert [request.body for request in asked] == [
        {
            "queries": ["aa", "b", "ccc", "b"],
            "gold_ids": [["d1"], ["d1"], ["d1"], ["d2"]],
            "topk": 10,
        }
    ]


def test_one_qid_with_many_rewrites_is_asked_for_each() -> None:
    queries = ["a", "bb", "ccc", "dddd"]
    found, asked = talk(qid_questions(queries, ["q"] * 4, 10), lengths(FIRST))
    assert found == [1, 2, 3, 4]
    assert asked[0].expected == 4


def test_long_lists_go_in_parts_that_fit() -> None:
    many = [f"{'x' * (i % 7)} {i}" for i in range(2 * CHUNK_QUERIES + 1)]
    found, asked = talk(qid_questions(many, ["q"] * len(many), 10), lengths(FIRST))
    assert found == [len(query) for query in many]
    assert [request.expected for request in asked] == [CHUNK_QUERIES, CHUNK_QUERIES, 1]
    wide = [str(i) * (CHUNK_CHARS // 2) for i in range(3)]
    _, asked = talk(qid_questions(wide, ["q"] * 3, 10), lengths(FIRST))
    assert [request.expected for request in asked] == [2, 1]
    assert 6 * CHUNK_CHARS < MAX_BODY_BYTES, "six bytes is the longest form of a character"


def test_nothing_asked_is_nothing_sent() -> None:
    assert talk([], lengths(FIRST)) == ([], [])


def test_what_is_known_is_not_asked(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "cache.db") as cache:
        before = rank_questions(["a", "bb"], [["d"], ["d"]], 10)
        assert talk(before, lengths(FIRST), cache)[0] == [1, 2]
        questions = rank_questions(["bb", "ccc", "a"], [["d"]] * 3, 10)
        found, asked = talk(questions, lengths(FIRST), cache)
        assert found == [2, 3, 1]
        assert [request.body and request.body["queries"] for request in asked] == [None, ["ccc"]]
        found, asked = talk(questions, lengths(FIRST), cache)
        assert (found, len(asked)) == ([2, 3, 1], 1), "only the index is asked for"


def test_answers_of_another_index_are_never_taken(tmp_path: Path) -> None:
    questions = rank_questions(["a", "bb"], [["d"], ["d"]], 10)

    def other(asked: Asked) -> Reply:
        return Reply(result=[100] * asked.expected, source=SECOND)

    with AnswerCache(tmp_path / "cache.db") as cache:
        assert talk(questions, lengths(FIRST), cache)[0] == [1, 2]
        assert talk(questions, other, cache)[0] == [100, 100]
        assert talk(questions, lengths(FIRST), cache)[0] == [1, 2]


def test_a_server_that_does_not_name_its_index_is_not_cached(tmp_path: Path) -> None:
    questions = rank_questions(["a"], [["d"]], 10)
    with AnswerCache(tmp_path / "cache.db") as cache:
        assert talk(questions, lengths(Source()), cache)[0] == [1]
        assert len(cache) == 0


@pytest.mark.parametrize("cached", [True, False])
def test_an_index_that_changes_in_between_starts_the_call_over(
    tmp_path: Path, cached: bool
) -> None:
    many = [f"{i:04}" for i in range(CHUNK_QUERIES + 1)]
    sources = [FIRST, FIRST, SECOND] if cached else [FIRST, SECOND]

    def changing(asked: Asked) -> Reply:
        source = sources.pop(0) if sources else SECOND
        rank = 1 if source == FIRST else 2
        return Reply(result=[rank] * asked.expected, source=source)

    with AnswerCache(tmp_path / "cache.db") as cache:
        found, _ = talk(
            qid_questions(many, ["q"] * len(many), 10), changing, cache if cached else None
        )
    assert set(found) == {2}, "no answer of the old index among those of the new one"


def test_an_index_that_keeps_changing_is_an_error() -> None:
    many = [f"{i:04}" for i in range(CHUNK_QUERIES + 1)]
    turns = iter(range(100))

    def restless(asked: Asked) -> Reply:
        return Reply(result=[1] * asked.expected, source=Source(str(next(turns))))

    with pytest.raises(RetrieverError, match="changed its index 3 times"):
        talk(qid_questions(many, ["q"] * len(many), 10), restless)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (rank_questions(["a"], [["d"]], 5), [-1, 0, True, "1", 1.0, [1]]),
        (search_questions(["a"], 5), [None, 3, [["d"]], [["d", 1]], [[1, 1.0]], {"d": 1.0}]),
    ],
)
def test_a_cache_with_something_else_is_refused(
    tmp_path: Path, asked: list[Question], kept: list[object]
) -> None:
    """As of a file that somebody wrote or changed: never a wrong rank, never a missing entry."""
    source = Source("index-1")
    for value in kept:
        with AnswerCache(tmp_path / "cache.db") as cache:
            cache.put({asked[0].key(source): value})
            talk = conversation(asked, url="http://x", cache=cache)
            next(talk)
            with pytest.raises(DataError, match="which no server answers"):
                talk.send(Reply(result=[], source=source))
