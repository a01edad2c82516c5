"""The multi-hop questions over the embedded encyclopaedia."""

import mini_case
import pytest

from convsearch.data.mini import DEFAULT_SEED
from convsearch.data.mini.generate import MiniData
from convsearch.data.mini.hops import HopData, generate_hops


@pytest.fixture(scope="module")
def hops() -> HopData:
    return mini_case.mini_hops()


@pytest.fixture(scope="module")
def mini() -> MiniData:
    return mini_case.mini()


def test_each_question_needs_two_passages_of_the_same_corpus(hops: HopData, mini: MiniData) -> None:
    passages = {p.doc_id: p for p in mini.passages}
    assert len(hops.questions) > 900
    for question in hops.questions:
        first, second = (passages[doc_id] for doc_id in hops.qrels[question.qid])
        assert first.title != second.title
        assert first.title in question.question
        (answer,) = question.answers
        if question.type == "bridge":
            assert second.title in first.text, "the first passage must name the thing in between"
            assert second.title not in question.question
            assert answer in second.text
        else:
            assert second.title in question.question
            assert answer in (first.title, second.title)
        assert answer not in question.question or question.type == "comparison"


def test_comparisons_name_the_earlier_one(hops: HopData, mini: MiniData) -> None:
    passages = {p.doc_id: p for p in mini.passages}

    def years(text: str) -> set[int]:
        words = text.replace(",", " ").replace(".", " ").replace(";", " ").split()
        return {int(word) for word in words if word.isdigit()}

    compared = [q for q in hops.questions if q.type == "comparison"]
    assert compared
    for question in compared:
        first, second = (passages[doc_id] for doc_id in hops.qrels[question.qid])
        by_year = {min(years(p.text)): p.title for p in (first, second)}
        assert by_year[min(by_year)] == question.answers[0]


def test_splits_start_from_different_things(hops: HopData, mini: MiniData) -> None:
    titles = {p.doc_id: p.title for p in mini.passages}
    starts: dict[str, set[str]] = {}
    for question in hops.questions:
        first = next(iter(hops.qrels[question.qid]))
        starts.setdefault(question.split, set()).add(titles[first])
    assert set(starts) == {"train", "dev", "test"}
    assert not starts["train"] & starts["test"]
    assert not starts["train"] & starts["dev"]
    assert not starts["dev"] & starts["test"]


def test_the_seed_decides(hops: HopData) -> None:
    assert generate_hops(DEFAULT_SEED) == hops
    assert generate_hops(DEFAULT_SEED + 1).questions != hops.questions
