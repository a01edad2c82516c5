"""Targets of pre-training are well-formed and made of words of the prompt alone."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsearch.nano.copying import count_copied
from convsearch.nano.examples import (
    SpanSettings,
    WordStatistics,
    content_spans,
    random_word_example,
    span_target,
    title_spans,
    words,
)
from convsearch.prompts import parse_rewrite, rewrite_messages
from convsearch.types import Message, Passage, Turn

PASSAGES = [
    Passage(doc_id=f"d{i}", title="", text=f"the house and the garden of number {i}")
    for i in range(50)
] + [Passage(doc_id="rare", title="Quillbark", text="the Quillbark mill")]
TURN = Turn(
    qid="q",
    conv_id="c",
    turn=2,
    split="train",
    question="Who owns the house?",
    history=(
        Message(role="user", text="Where is the Quillbark mill?"),
        Message(role="agent", text="In the garden, beside the house of number 7."),
    ),
)


@given(seed=st.integers(0, 10_000))
def test_a_target_is_the_question_then_spans_of_the_history(seed: int) -> None:
    stats = WordStatistics.of(PASSAGES)
    response = span_target(TURN, stats, SpanSettings(), random.Random(seed))
    parsed = parse_rewrite(response)
    assert parsed is not None
    question = words(TURN.question)
    rewritten = words(parsed.rewrite)
    assert rewritten[: len(question)] == question
    assert len(rewritten) > len(question)
    prompt = rewrite_messages(TURN, "nano")[-1]["content"]
    assert count_copied(prompt, parsed.rewrite) == (len(rewritten), len(rewritten))


def test_the_longest_title_at_a_place_is_a_span_and_common_words_are_none() -> None:
    named = [Passage(doc_id=t, title=t, text="") for t in ("Mill", "Quillbark Mill", "the")]
    stats, settings = WordStatistics.of([*PASSAGES, *named]), SpanSettings(idf_floor=1.0)
    spans = title_spans("the Quillbark Mill and the Mill and Quillbark", stats, settings)
    assert [" ".join(span) for span, _ in spans] == ["Quillbark Mill", "Mill", "Quillbark"]
    assert title_spans("quillbark mill", stats, settings) == [], "a name has its capitals"


def test_a_title_is_drawn_before_other_rare_words() -> None:
    stats = WordStatistics.of([*PASSAGES, Passage(doc_id="x", title="", text="zephyr quokka")])
    said = Message(role="user", text="a zephyr and the Quillbark and a quokka")
    turn = replace(TURN, history=(said, TURN.history[1]))
    settings = SpanSettings(max_spans=1, max_gap=0)
    drawn = [span_target(turn, stats, settings, random.Random(i)) for i in range(200)]
    assert sum("Quillbark" in response for response in drawn) > 150


def test_only_what_the_prompt_shows_is_drawn() -> None:
    stats = WordStatistics.of(PASSAGES)
    old = Message(role="agent", text="Quillbark " + "the " * 400)
    long_ago = replace(TURN, question="Who?", history=(TURN.history[1], old, *TURN.history[1:]))
    drawn = {span_target(long_ago, stats, SpanSettings(), random.Random(i)) for i in range(50)}
    assert not any("Quillbark" in response for response in drawn)


def test_rare_words_are_drawn_far_more_often_than_common_ones() -> None:
    stats = WordStatistics.of(PASSAGES)
    everything = SpanSettings(max_spans=1, max_span_words=1, idf_floor=-1.0, idf_power=1.5, pool=50)
    drawn = [
        parse_rewrite(span_target(TURN, stats, everything, random.Random(i))) for i in range(300)
    ]
    last = [words(p.rewrite)[-1] for p in drawn if p]
    assert last.count("Quillbark") > 3 * last.count("garden") > 0


def test_runs_of_content_words_stay_whole_and_common_words_stay_out() -> None:
    passages = [Passage(doc_id=f"d{i}", title="", text="the and is a river") for i in range(100)]
    passages.append(Passage(doc_id="x", title="Pride and Prejudice", text="Mr Darcy"))
    stats = WordStatistics.of(passages)
    spans = content_spans(
        "is Pride and Prejudice a river and the, Mr Darcy?", stats, SpanSettings()
    )
    assert [words for words, _ in spans] == [["Pride", "and", "Prejudice"], ["Mr", "Darcy"]]
    assert content_spans("the river is", stats, SpanSettings()) == []


def test_what_people_say_all_the_time_is_no_content() -> None:
    passages = [Passage(doc_id=f"d{i}", title="", text=f"city {i}") for i in range(100)]
    passages.append(Passage(doc_id="x", title="", text="yes amber"))
    alone = WordStatistics.of(passages)
    assert alone.idf("yes") == alone.idf("amber") > 3
    said = WordStatistics.of(passages, ["Yes, it is."] * 9 + ["by the city"])
    assert said.idf("yes") == 0
    assert said.idf("amber") == pytest.approx(math.log(10))


def test_a_first_question_repeats_itself() -> None:
    first = Turn(qid="q", conv_id="c", turn=1, split="train", question="Who built it?")
    response = span_target(first, WordStatistics.of(PASSAGES), SpanSettings(), random.Random(0))
    parsed = parse_rewrite(response)
    assert parsed is not None
    assert parsed.rewrite == "Who built it"


@given(seed=st.integers(0, 10_000), longest=st.integers(6, 80))
def test_random_conversations_can_only_be_solved_by_copying(seed: int, longest: int) -> None:
    vocabulary = [f"w{i}" for i in range(500)]
    turn, response = random_word_example(
        vocabulary, SpanSettings(), random.Random(seed), max_words=longest
    )
    parsed = parse_rewrite(response)
    assert parsed is not None
    said = {w for m in turn.history for w in words(m.text)} | set(words(turn.question))
    assert set(words(parsed.rewrite)) <= said
    assert [m.role for m in turn.history] == ["user", "agent"] * (len(turn.history) // 2)


@pytest.mark.parametrize(
    ("prompt", "rewrite", "expected"),
    [
        ("Q: Where is Ana?", "where is ANA", (3, 3)),
        ("Q: Where is Ana?", "where is Anabel", (2, 3)),
        ("Q: x", "", (0, 0)),
    ],
)
def test_copied_words_are_whole_words_of_any_case(
    prompt: str, rewrite: str, expected: tuple[int, int]
) -> None:
    assert count_copied(prompt, rewrite) == expected


def test_a_question_without_a_word_still_has_a_well_formed_target() -> None:
    turn = replace(TURN, question="?!", history=())
    stats = WordStatistics.of(PASSAGES)
    assert parse_rewrite(span_target(turn, stats, SpanSettings(), random.Random(0))) is not None
