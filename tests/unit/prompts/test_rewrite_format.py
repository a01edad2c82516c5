"""The strict response format, against a parser written in another way, on hostile input."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convsearch.errors import ConfigError
from convsearch.prompts import (
    TRAINED_STYLES,
    asked_question,
    format_response,
    parse_rewrite,
    rewrite_messages,
)
from convsearch.prompts.conversation import NANO_HISTORY_CHARS, NANO_QUESTION_CHARS
from convsearch.types import Message, Turn

TAGS = ["<think>", "</think>", "<rewrite>", "</rewrite>"]
PIECES = [
    *TAGS,
    *TAGS,
    "\n",
    "\r\n",
    " ",
    "",
    "a",
    "b c",
    "<",
    ">",
    "</",
    "<Think>",
    "<rewrite",
    "é",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
UNTAGGED = ANY_TEXT.filter(lambda text: not any(tag in text for tag in TAGS))
FREE = settings(deadline=None)


def worded(text: str) -> bool:
    """Whether a letter or a number stands in it, by the table of Unicode."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def parts_by_hand(response: str) -> tuple[str, str] | None:
    """The format read left to right with partition; no pattern, no counting up front."""
    before, found, rest = response.partition("<think>")
    if before or not found:
        return None
    think, found, rest = rest.partition("</think>")
    if not found:
        return None
    between, found, rest = rest.partition("<rewrite>")
    if not found or between.strip():
        return None
    rewrite, found, after = rest.partition("</rewrite>")
    if not found or after or not worded(rewrite):
        return None
    if any(tag in part for tag in TAGS for part in (think, rewrite)):
        return None
    return think.strip(), " ".join(rewrite.split())


@FREE
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_parser_agrees_with_a_reader_of_another_kind_on_tag_soup(response: str):
    parsed = parse_rewrite(response)
    expected = parts_by_hand(response)
    assert (None if parsed is None else (parsed.think, parsed.rewrite)) == expected


@FREE
@given(UNTAGGED, UNTAGGED.filter(worded), st.sampled_from(["", "\n", "\r\n", " \n\t "]))
def test_well_formed_responses_parse_to_their_parts(think: str, rewrite: str, between: str):
    response = f"<think>{think}</think>{between}<rewrite>{rewrite}</rewrite>"
    parsed = parse_rewrite(response)
    assert parsed is not None
    assert (parsed.think, parsed.rewrite) == (think.strip(), " ".join(rewrite.split()))
    assert "\n" not in parsed.rewrite
    assert parsed.rewrite == parsed.rewrite.strip() != ""


@FREE
@given(UNTAGGED, UNTAGGED.filter(worded))
def test_format_and_parse_are_inverse(think: str, rewrite: str):
    parsed = parse_rewrite(format_response(think, rewrite))
    assert parsed is not None
    assert parse_rewrite(format_response(parsed.think, parsed.rewrite)) == parsed


@FREE
@given(ANY_TEXT.filter(bool), st.booleans())
@example("\n", False)
@example(" ", True)
def test_anything_before_or_after_is_malformed(extra: str, in_front: bool):
    response = format_response("a", "b")
    assert parse_rewrite(extra + response if in_front else response + extra) is None


@pytest.mark.parametrize(
    "response",
    [
        "",
        "no tags at all",
        "<think>a</think>",
        "<rewrite>b</rewrite>",
        "<rewrite>b</rewrite>\n<think>a</think>",
        "<think>a</think>\n<rewrite></rewrite>",
        "<think>a</think>\n<rewrite> \r\n\t</rewrite>",
        "<think>a</think> so <rewrite>b</rewrite>",
        "<think>a</think>\n<rewrite>b</rewrite>\nand more",
        "<think>a</think>\n<rewrite>b</rewrite>\n<rewrite>c</rewrite>",
        "<think>a</think></think>\n<rewrite>b</rewrite>",
        "<think><think>a</think>\n<rewrite>b</rewrite>",
        "<think>a <rewrite>c</rewrite></think>\n<rewrite>b</rewrite>",
        "<think>a</think>\n<rewrite>b",
    ],
)
def test_what_the_original_let_through_is_malformed(response: str):
    assert parse_rewrite(response) is None


def test_carriage_returns_are_white_space():
    parsed = parse_rewrite("<think>a\r\nb</think>\r\n<rewrite>c\r\nd</rewrite>")
    assert parsed is not None
    assert parsed.rewrite == "c d"


def test_a_rewrite_of_100_000_characters_is_read_whole_and_fast():
    parsed = parse_rewrite(format_response("a" * 100_000, "word " * 20_000))
    assert parsed is not None
    assert len(parsed.rewrite) == 99_999
    assert parse_rewrite("<think>" * 15_000) is None
    assert parse_rewrite("<think>a</think>" + " " * 100_000) is None


@pytest.mark.parametrize(
    "rewrite", ["...", "?!", "—", "\U0001f642", "\U0001f1e9\U0001f1ea", '""', "_"]
)
def test_a_rewrite_without_a_word_is_malformed(rewrite: str):
    assert parse_rewrite(f"<think>a</think>\n<rewrite>{rewrite}</rewrite>") is None


@pytest.mark.parametrize(
    "rewrite", ["42", "C++", "日本語", "ทะเล", "काम", "٣", "é", "(a)", "\U0001f642 ja"]
)
def test_words_of_any_script_and_digits_are_words(rewrite: str):
    parsed = parse_rewrite(f"<think>a</think>\n<rewrite>{rewrite}</rewrite>")
    assert parsed is not None
    assert parsed.rewrite == rewrite


@pytest.mark.parametrize(
    ("think", "rewrite"),
    [("a", ""), ("a", " \n"), ("a", "?"), ("</think>", "b"), ("a", "<rewrite>")],
)
def test_parts_that_no_response_can_hold_are_refused(think: str, rewrite: str):
    with pytest.raises(ValueError, match="a rewrite must hold a word"):
        format_response(think, rewrite)


LINE = st.builds(
    lambda text, times: (text * times)[:400],
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=8),
    st.integers(0, 80),
)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    texts = draw(st.lists(st.tuples(LINE, LINE), max_size=4))
    history = [
        Message(role=role, text=text)
        for pair in texts
        for role, text in zip(("user", "agent"), pair, strict=True)
    ]
    question = draw(LINE.filter(str.strip))
    return Turn(
        qid="q", conv_id="c", turn=1, split="train", question=question, history=tuple(history)
    )


@settings(deadline=None, max_examples=50)
@given(turns())
def test_the_nano_prompt_stays_within_its_budget_and_ends_with_the_question(turn: Turn):
    [message] = rewrite_messages(turn, "nano")
    *history, last = message["content"].split("\n")
    question = " ".join(turn.question.split())
    assert last == f"Q: {question}" or question.startswith(last.removeprefix("Q: "))
    assert len(last) <= NANO_QUESTION_CHARS + len("Q: ")
    assert len("\n".join(history)) <= NANO_HISTORY_CHARS + NANO_QUESTION_CHARS + len("Q: \n")
    marks = {"user": "Q: ", "agent": "A: "}
    spoken = [marks[m.role] + " ".join(m.text.split()) for m in turn.history]
    if history != spoken:
        opening, newest = history[0], history[1:]
        assert newest == spoken[len(spoken) - len(newest) :]
        assert spoken[0].startswith(opening)
        assert opening != "Q: " or spoken[0] == "Q: "


@settings(deadline=None, max_examples=50)
@given(turns(), st.sampled_from([0, 1]))
def test_the_instruct_prompt_holds_every_utterance(turn: Turn, shots: int):
    chat = rewrite_messages(turn, "instruct", shots=shots)
    assert [m["role"] for m in chat] == ["system", *["user", "assistant"] * shots, "user"]
    assert all(m.text in chat[-1]["content"] for m in turn.history)
    assert asked_question(chat) == turn.question
    if shots:
        assert parse_rewrite(chat[2]["content"]) is not None


def test_asked_question_reads_the_nano_prompt():
    turn = Turn(qid="q", conv_id="c", turn=1, split="s", question="why  so?")
    assert asked_question(rewrite_messages(turn, "nano")) == "why so?"


@pytest.mark.parametrize(
    ("style", "shots", "said"),
    [("nano", 1, "no worked example"), ("instruct", 2, "shots=2"), ("odd", 0, "'odd'")],
)
def test_impossible_prompts_are_refused_with_a_sentence(style, shots: int, said: str):
    turn = Turn(qid="q", conv_id="c", turn=1, split="s", question="why?")
    with pytest.raises(ConfigError, match=said):
        rewrite_messages(turn, style, shots=shots)
    assert set(TRAINED_STYLES) == {"instruct", "nano"}
