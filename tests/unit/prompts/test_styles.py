"""Every prompt style: what it asks, and its parser against readers written in another way."""

import unicodedata
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.prompts import (
    PROMPT_STYLES,
    PromptStyle,
    PromptTemplate,
    asked_question,
    parse_response,
    parse_rewrite,
    read_template,
    rewrite_messages,
    well_formed_response,
    with_thought,
)
from convsearch.prompts.examples import WORKED_EXAMPLES
from convsearch.types import Message, Turn

STYLES: tuple[PromptStyle, ...] = get_args(PromptStyle)
TAGS = ["<think>", "</think>", "<rewrite>", "</rewrite>"]
PIECES = [
    *TAGS, "</think>", "Query:", "query:", "**Query:**", "\nQuery: ", "\n QUERY:", "a Query: b",
    "\n", "\r\n", " ", "", "a", "b c", "\u2028", "é", "...", "**", "## Query", "\n**Query**",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(PIECES), max_size=10).map("".join)
FREE = settings(deadline=None, max_examples=150)
TURN = Turn(
    qid="q",
    conv_id="c",
    turn=2,
    split="test",
    question="and {how} big?",
    history=(
        Message(role="user", text="what is {question}?"),
        Message(role="agent", text="a moon"),
    ),
)
SHOTS = {"instruct": 1, "plain": 3, "cot": 3}


def has_word(words: list[str]) -> bool:
    return any(word.strip("?'") for word in words)


def tagged(text: str) -> bool:
    return any(tag in text for tag in TAGS)


def words_of(text: str) -> str | None:
    """The text on one line; None where no letter and no number stands in it, or a tag does."""
    found = any(unicodedata.category(character)[0] in "LN" for character in text)
    return " ".join(text.split()) if found and not tagged(text) else None


def queries_by_hand(style: str, response: str) -> str | None:
    """The query, read without patterns."""
    if style in ("plain", "pseudo_document"):
        return words_of(response)
    answer = response.split("</think>")[-1]
    if style == "reasoning":
        return words_of(answer) if "</think>" in response else None
    assert style == "cot"
    lines = answer.split("\n")
    for i in range(len(lines) - 1, -1, -1) if "<think>" not in answer else ():
        line = lines[i].lstrip(" \t")
        heading = line.startswith("## ")
        line = line.removeprefix("## ")
        stars = len(line) - len(line.lstrip("*"))
        name, rest = line[stars : stars + 5], line[stars + 5 :]
        if stars > 3 or name.lower() != "query":
            continue
        closed = min(3, len(rest) - len(rest.lstrip("*")))
        rest = rest[closed:]
        if rest.lstrip(" \t").startswith(":"):
            rest = rest.lstrip(" \t")[1:]
            late = min(3, len(rest) - len(rest.lstrip("*")))
            rest = rest[late:]
        else:
            late = 0
            if rest.strip(" \t\r") or not (heading or (stars and closed)):
                continue
        rest = "\n".join([rest, *lines[i + 1 :]]).strip()
        if len(rest.splitlines()) != 1 or tagged(rest):
            return None
        if bool(stars) != bool(closed or late):
            rest = rest.removesuffix("*" * (stars or closed or late))
        for mark in ("***", "**", "*"):
            inner = rest[len(mark) : -len(mark)]
            if rest == f"{mark}{inner}{mark}" and inner and mark not in inner:
                rest = inner
                break
        return words_of(rest)
    return None


@pytest.mark.parametrize("style", ["plain", "pseudo_document", "reasoning", "cot"])
@FREE
@given(response=SOUP)
def test_parsers_agree_with_readers_of_another_kind(style: PromptStyle, response: str):
    parsed = parse_response(style, response)
    assert (parsed.rewrite if parsed else None) == queries_by_hand(style, response)


@pytest.mark.parametrize("style", ["instruct", "nano"])
@FREE
@given(response=SOUP)
def test_trained_styles_are_read_as_in_training(style: PromptStyle, response: str):
    assert parse_response(style, response) == parse_rewrite(response)


@pytest.mark.parametrize("style", STYLES)
@FREE
@given(
    words=st.lists(st.text("abcé0?'", min_size=1), min_size=1).filter(has_word),
    blank=st.sampled_from(" \n\t"),
)
def test_a_query_comes_back_on_one_line(style: PromptStyle, words: list[str], blank: str):
    chat = rewrite_messages(TURN, style)
    text = well_formed_response(chat, " ".join(words))
    parsed = parse_response(style, text)
    assert parsed is not None
    assert parsed.rewrite == " ".join(words)
    assert parse_response(style, f"{blank}{text}{blank}") == (
        None if style in ("instruct", "nano") else parsed
    )


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("response", ["", " \n", "<think>", "<think>a</think>", "<rewrite>"])
def test_responses_without_a_query_are_malformed(style: PromptStyle, response: str):
    assert parse_response(style, response) is None


@pytest.mark.parametrize(
    ("style", "response", "query"),
    [
        ("reasoning", "so </think> not yet </think>\n\nthe\nquery", "the query"),
        ("reasoning", "it thinks and is cut", None),
        ("reasoning", "a</think><rewrite>b</rewrite>", None),
        ("cot", "reason\n**Query**: Kallsund ferry cost", "Kallsund ferry cost"),
        ("cot", "reason\n**Query: Kallsund ferry cost**", "Kallsund ferry cost"),
        ("cot", "reason\n## Query\nKallsund ferry cost", "Kallsund ferry cost"),
        ("cot", "reason\n### **Query:** Kallsund ferry cost", "Kallsund ferry cost"),
        ("cot", "reason\n__Query__ : Kallsund ferry cost", "Kallsund ferry cost"),
        ("cot", "Query: draft\nbetter:\n**Query:** the  query\n", "the query"),
        ("cot", "Query:\nthe query", "the query"),
        ("cot", "Query: the query\nI hope it helps", None),
        ("cot", "My query: the query", None),
        ("cot", "So.\n**Query**: the query", "the query"),
        ("cot", "So.\n*Query*: the query", "the query"),
        ("cot", "So.\n__Query:__ the query", "the query"),
        ("cot", "So.\n**Query: the query**", "the query"),
        ("cot", "So.\n**Query:** **the query**", "the query"),
        ("cot", "So.\nQuery:**the query**", "the query"),
        ("cot", "So.\nQuery: `the query`", "the query"),
        ("cot", "So.\nQuery: *the* good *query*", "*the* good *query*"),
        ("cot", "So.\n## Query\n\nthe query", "the query"),
        ("cot", "So.\r\n### **Query**\r\nthe query\r\n", "the query"),
        ("cot", "So.\n## Query: the query", "the query"),
        ("cot", "So.\n**Query**\nthe query", "the query"),
        ("cot", "So.\n- **QUERY :** the query", "the query"),
        ("cot", "So.\n> Query\uff1athe query", "the query"),
        ("cot", "Query\nthe query", None),
        ("cot", "Querying: the query", None),
        ("cot", "**Query**: draft\n## Query\nthe query", "the query"),
        ("cot", "Query: the query\n**Query**: ...", None),
        ("cot", "<think>Query: draft</think>\nQuery: the query", "the query"),
        ("cot", "<think>so\nQuery: draft", None),
        ("cot", "<think>so\nQuery: draft</think>\nI am not sure", None),
        ("cot", "So.\n1. Query: the query", "the query"),
        ("cot", "So.\n2) **Query:** the query", "the query"),
        ("cot", "So.\n\u2022 Query: the query", "the query"),
        ("cot", 'So.\nQuery: "the query"', "the query"),
        ("cot", "So.\n**Query:** \u201cthe query\u201d", "the query"),
        ("cot", 'So.\nQuery: "the query" of "two"', '"the query" of "two"'),
        ("cot", "So.\nQuery:\n```\nthe query\n```", "the query"),
        ("cot", "So.\nQuery:\n```text\nthe query\n```\n", "the query"),
        ("cot", "So.\nQuery:\n```\nthe query\nand more\n```", None),
        ("cot", "So.\n2024 Query: the query", None),
        ("plain", "...", None),
        ("reasoning", "so</think>?!", None),
        ("plain", "the\n query", "the query"),
        ("plain", "<think>a</think>\n<rewrite>b</rewrite>", None),
        ("pseudo_document", "A passage.\n\nIn two parts", "A passage. In two parts"),
    ],
)
def test_the_rules_by_example(style: PromptStyle, response: str, query: str | None):
    parsed = parse_response(style, response)
    assert (parsed.rewrite if parsed else None) == query


@pytest.mark.parametrize(
    ("style", "thought", "answer", "query"),
    [
        ("reasoning", "so", "the query", "the query"),
        ("reasoning", "<think>so</think>", "\nthe query", "the query"),
        ("reasoning", "so", "more</think>the query", "the query"),
        ("reasoning", "so, the query", "", None),
        ("reasoning", "", "the query", None),
        ("instruct", "so", "<rewrite>the query</rewrite>", "the query"),
        ("nano", "so", "\n\n<rewrite>the query</rewrite>\n", "the query"),
        ("instruct", "so", "<think>a</think>\n<rewrite>the query</rewrite>", "the query"),
        ("instruct", "so", "the query", None),
        ("instruct", "<rewrite>the query</rewrite>", "", None),
        ("cot", "so\nQuery: draft", "It is this.\nQuery: the query", "the query"),
        ("cot", "so\nQuery: draft", "", None),
        ("cot", "so\nQuery: draft", "the query", None),
        ("plain", "so", "the query", "the query"),
        ("plain", "so, the query", "", None),
        ("pseudo_document", "so", "A passage.", "A passage."),
    ],
)
def test_a_thought_that_came_apart_is_joined_where_one_is_expected(
    style: PromptStyle, thought: str, answer: str, query: str | None
):
    response = with_thought(style, thought, answer)
    parsed = parse_response(style, response)
    assert (parsed.rewrite if parsed else None) == query
    if parsed and style == "reasoning":
        assert parsed.think == "so" or answer.startswith("more")


@pytest.mark.parametrize("style", STYLES)
def test_prompts_hold_the_conversation_and_as_many_examples_as_asked_for(style: PromptStyle):
    most = SHOTS.get(style, 0)
    for shots in range(most + 1):
        chat = rewrite_messages(TURN, style, shots=shots)
        roles = [m["role"] for m in chat]
        assert roles[-1 - 2 * shots :] == [*["user", "assistant"] * shots, "user"]
        assert asked_question(chat) == TURN.question
        assert all(m.text in chat[-1]["content"] for m in TURN.history)
        answers = chat[-2 * shots :: 2] if shots else []
        for answer, example in zip(answers, WORKED_EXAMPLES[:shots], strict=True):
            assert answer["role"] == "assistant"
            parsed = parse_response(style, answer["content"])
            assert parsed is not None
            assert parsed.rewrite == example.rewrite
    with pytest.raises(ConfigError, match=r"shots"):
        rewrite_messages(TURN, style, shots=most + 1)
    with pytest.raises(ConfigError, match=r"shots"):
        rewrite_messages(TURN, style, shots=-1)
    assert style in PROMPT_STYLES


def test_a_template_is_filled_once_and_its_answer_read_by_the_style(tmp_path: Path):
    file = tmp_path / "prompt.txt"
    file.write_text("Before:\n{conversation}\nNow: {question} {} {1} }{\nRewrite:\n")
    [message] = rewrite_messages(TURN, "instruct", template=read_template(file))
    assert message == {
        "role": "user",
        "content": "Before:\nQ1: what is {question}?\nA1: a moon\nNow: and {how} big? {} {1} }{\n"
        "Rewrite:",
    }
    first = Turn(qid="q", conv_id="c", turn=1, split="s", question="why?")
    template = PromptTemplate(text="[{conversation}] {question}", where="here")
    assert rewrite_messages(first, "plain", template=template)[0]["content"] == "[] why?"
    with pytest.raises(ConfigError, match=r"prompt\.txt.*shots=0"):
        rewrite_messages(TURN, "instruct", shots=1, template=read_template(file))


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"{context} {question}", DataError, r"\{context\} is no placeholder"),
        (b"{conversation}", DataError, r"\{question\} is missing"),
        (b"", DataError, r"\{question\} is missing"),
        (b"\xff{question}", DataError, "UTF-8"),
        (None, MissingFileError, "no such file"),
    ],
)
def test_prompt_files_that_are_none(content: bytes | None, error, said: str, tmp_path: Path):
    file = tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=said):
        read_template(file)


def test_an_unknown_style_is_refused():
    with pytest.raises(ConfigError, match="'odd'"):
        parse_response("odd", "a")  # pyright: ignore[reportArgumentType]
