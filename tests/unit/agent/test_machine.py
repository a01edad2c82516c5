"""The state machine: turns, budgets, and a defined, counted outcome for every bad input."""

import json

import pytest
from agent_case import FORMS, STRATEGY_OF, answer, begin, call, play
from hypothesis import given, settings
from hypothesis import strategies as st

from convsearch.agent import (
    STRATEGIES,
    Correction,
    Evidence,
    FinalAnswer,
    SearchCall,
    exhaust,
    fail,
    messages,
    observe,
    step,
    strategy,
    to_episode,
    tool_format,
)
from convsearch.errors import ConfigError


@pytest.mark.parametrize("form", FORMS)
def test_search_read_answer(form: str):
    state = begin(form)
    state, outcome = step(state, call(form, "first program"), 7)
    assert outcome == SearchCall(queries=("first program",))
    state = observe(state, Evidence(text="Ada wrote it.", doc_ids=("d1", "d2")))
    state, outcome = step(state, answer("Ada Lovelace"), 5)
    assert outcome == FinalAnswer(answer="Ada Lovelace", ended_by="answer")
    episode = to_episode(state, seed=3)
    assert (episode.status, episode.answer, episode.ended_by) == (
        "answered", "Ada Lovelace", "answer",
    )  # fmt: skip
    assert [span.kind for span in episode.spans] == ["model", "tool", "model"]
    assert all(span.well_formed for span in episode.spans if span.kind == "model")
    assert (episode.queries, episode.doc_ids) == (("first program",), ("d1", "d2"))
    assert (episode.num_turns, episode.num_model_tokens) == (2, 12)
    assert episode.num_tool_tokens == episode.spans[1].num_tokens > 0
    assert dict(episode.counts) == {}


@pytest.mark.parametrize("form", FORMS)
def test_each_chat_continues_the_one_before(form: str):
    state, before = begin(form), ""
    for text in [call(form, "a"), "no action at all", call(form, "b")]:
        chat = "".join(m["content"] for m in messages(state))
        assert chat.startswith(before)
        before = chat
        state, outcome = step(state, text)
        if isinstance(outcome, SearchCall):
            state = observe(state, Evidence(text="passage"))
    assert "".join(m["content"] for m in messages(state)).startswith(before)


def test_the_inline_form_stays_in_one_turn_of_the_model():
    state = play(begin("search_r1"), [call("search_r1", "a"), call("search_r1", "b")], "found")
    chat = messages(state)
    assert [m["role"] for m in chat] == ["user", "assistant"]
    assert chat[1]["content"].count("<information>") == 2


def test_variants_are_capped_cleaned_and_distinct():
    state = begin("hermes")
    wanted = ["  First \n program ", "first program", "", "b", "c", "d", "x" * 5000]
    state, outcome = step(state, call("hermes", *wanted))
    assert outcome == SearchCall(queries=("First program", "b", "c"))
    assert dict(state.counts) == {"empty_queries": 1, "repeated_queries": 1, "dropped_queries": 2}


@pytest.mark.parametrize("form", ["plain", "hermes"])
def test_a_thousand_variants_are_three(form: str):
    state, outcome = step(begin(form), call(form, *(f"query {i}" for i in range(1000))))
    assert outcome == SearchCall(queries=("query 0", "query 1", "query 2"))
    assert state.counts["dropped_queries"] == 997


def test_a_long_query_is_cut_and_counted():
    state, outcome = step(begin(), call("plain", "word " * 1000))
    assert isinstance(outcome, SearchCall)
    assert len(outcome.queries[0]) <= 1000
    assert state.counts["cut_queries"] == 1


def hermes(content: str) -> str:
    return f"<tool_call>{content}</tool_call>"


@pytest.mark.parametrize(
    ("form", "text", "fault"),
    [
        ("hermes", hermes("{not json"), "not_json"),
        ("hermes", hermes("[" * 12_000), "not_json"),
        ("hermes", hermes("[1, 2]"), "not_json"),
        ("hermes", hermes('"search"'), "not_json"),
        ("hermes", hermes('{"name": "rm", "arguments": {"query_list": ["a"]}}'), "unknown_tool"),
        ("hermes", hermes('{"arguments": {"query_list": ["a"]}}'), "unknown_tool"),
        ("hermes", hermes('{"name": "search"}'), "bad_arguments"),
        ("hermes", hermes('{"name": "search", "arguments": {"query_list": 3}}'), "bad_arguments"),
        ("hermes", hermes('{"name": "search", "arguments": {"query_list": [1]}}'), "bad_arguments"),
        ("hermes", hermes('{"name": "search", "arguments": "{"}'), "not_json"),
        ("hermes", hermes('{"name": "search", "arguments": {"query_list": []}}'), "empty_query"),
        ("hermes", hermes('{"name": "search", "arguments": {"query_list": [" "]}}'), "empty_query"),
        ("plain", "<search>\n \n</search>", "empty_query"),
        ("search_r1", "<search></search>", "empty_query"),
        ("plain", "", "no_action"),
        ("plain", "just words", "no_action"),
        ("plain", "<search>never closed", "unclosed"),
        ("plain", "<answer>never closed", "unclosed"),
        ("plain", "<answer> </answer>", "empty_answer"),
        ("plain", "<think><answer>thought only</answer></think>", "no_action"),
        ("hermes", "<search>other form</search>", "no_action"),
    ],
)  # fmt: skip
def test_bad_input_is_a_counted_correction(form: str, text: str, fault: str):
    state, outcome = step(begin(form), text)
    assert outcome == Correction(fault=fault)
    assert state.counts[fault] == 1
    assert state.wants == "text"
    assert state.spans[-1].kind == "tool"
    state, outcome = step(state, answer("still alive"))
    assert isinstance(outcome, FinalAnswer)
    assert to_episode(state).status == "answered"


@pytest.mark.parametrize("form", FORMS)
def test_a_loop_of_identical_calls_ends(form: str):
    state = play(begin(form, max_turns=50), [call(form, "Same"), *[call(form, "same")] * 20], "p")
    episode = to_episode(state)
    assert (episode.status, episode.ended_by) == ("no_answer", "faults")
    assert episode.queries == ("Same",)
    assert episode.counts["repeated_call"] == 3
    assert episode.num_turns == 4


@pytest.mark.parametrize(
    ("budget", "ended_by"),
    [
        ({"max_turns": 3}, "turns"),
        ({"max_queries": 2}, "queries"),
        ({"max_model_tokens": 20}, "tokens"),
    ],
)
def test_every_budget_ends_the_episode(budget: dict[str, int], ended_by: str):
    texts = [call("plain", f"need {i}") for i in range(20)]
    episode = to_episode(play(begin(max_queries_per_call=1, **budget), texts, "p"))
    assert (episode.status, episode.ended_by, episode.answer) == ("no_answer", ended_by, None)
    assert episode.num_turns <= 3
    assert len(episode.queries) <= 2


def test_the_model_is_told_when_no_search_is_left():
    state = play(begin(max_turns=2), [call("plain", "a")], "p")
    assert "Answer now" in messages(state)[-1]["content"]
    state = play(begin(max_turns=3), [call("plain", "a")], "p")
    assert "Answer now" not in messages(state)[-1]["content"]


def test_nothing_found_is_said_and_counted():
    state = play(begin(), [call("plain", "a")], "  \n")
    assert state.counts["no_results"] == 1
    assert "Nothing was found" in messages(state)[-1]["content"]


def test_rag_searches_first_and_once():
    state = begin("plain", "rag")
    assert (state.wants, state.pending) == ("results", ("Who wrote the first program?",))
    state = observe(state, Evidence(text="Ada <b>wrote</b> it", doc_ids=("d1",)))
    [system, user] = messages(state)
    assert "Ada &lt;b&gt;wrote" in user["content"]
    assert "search" not in system["content"]
    state, outcome = step(state, call("plain", "more"))
    assert outcome == Correction(fault="no_search_allowed")
    state, outcome = step(state, answer("Ada"))
    episode = to_episode(state)
    assert (episode.answer, episode.queries, episode.doc_ids) == (
        "Ada", ("Who wrote the first program?",), ("d1",),
    )  # fmt: skip


def test_direct_never_searches():
    state = play(begin("plain", "direct"), [call("plain", "a"), answer("b")], "p")
    episode = to_episode(state)
    assert (episode.answer, episode.queries) == ("b", ())


def test_an_engine_without_an_answer_fails_one_episode():
    episode = to_episode(fail(begin(), "the prompt is too long"))
    assert (episode.status, episode.error) == ("failed", "the prompt is too long")


def test_states_are_asked_for_what_they_want():
    state, _ = step(begin(), call("plain", "a"))
    with pytest.raises(ValueError, match="wants results"):
        step(state, "text")
    with pytest.raises(ValueError, match="wants text"):
        observe(begin(), Evidence(text="p"))
    with pytest.raises(ValueError, match="not over"):
        to_episode(begin())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_prompt_shows_its_own_form_and_no_other(name: str, form: str):
    if form == "search_r1" and name in ("expand_search", "parallel_search"):
        with pytest.raises(ConfigError, match="one query a call"):
            begin(form, name)
        return
    prompt = messages(begin(form, name))[0]["content"]
    chosen, shape = strategy(name), tool_format(form)
    assert "<answer>" in prompt
    assert (f"<{shape.call_tag}>" in prompt) == chosen.searches
    if chosen.searches:
        parsed = shape.parse(prompt.split("To search, write:")[1].split("The results")[0])
        assert len(parsed.queries) == chosen.budget.max_queries_per_call


def test_hermes_declares_a_valid_schema():
    prompt = messages(begin("hermes"))[0]["content"]
    schema = json.loads(prompt.split("<tools>\n")[1].split("\n</tools>")[0])
    queries = schema["function"]["parameters"]["properties"]["query_list"]
    assert queries["items"] == {"type": "string"}
    assert queries["maxItems"] == 3


@pytest.mark.parametrize(
    ("call_", "reason"),
    [
        (lambda: strategy("guess"), "unknown strategy"),
        (lambda: strategy("search_r1", num_variants=3), "one query at a time"),
        (lambda: strategy("rag", num_variants=2), "one query at a time"),
        (lambda: strategy("rag", max_turms=2), "unknown budget 'max_turms'"),
        (lambda: strategy("rag", max_turns=0), "max_turns must be 1"),
        (lambda: strategy("expand_search", num_variants=0), "max_queries_per_call must be 1"),
        (lambda: tool_format("xml"), "unknown tool format"),
    ],
)
def test_bad_settings_are_sentences(call_, reason: str):
    with pytest.raises(ConfigError, match=reason):
        call_()


PIECES = [
    *("<think>", "</think>", "<search>", "</search>", "<tool_call>", "</tool_call>", "<answer>"),
    *("</answer>", "{", '{"name":"search","arguments":{"query_list":["', '"]}}', "a", "b", "\n"),
    *(" ", "\ud800", "<|im_end|>", "\x00"),
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=12),
    st.sampled_from(FORMS),
)
def test_no_text_breaks_the_machine_and_budgets_hold(texts: list[str], form: str):
    state = play(begin(form), [*texts, *["junk"] * 6], "p")
    episode = to_episode(state)
    budget = strategy(STRATEGY_OF[form]).budget
    assert episode.num_turns <= budget.max_turns
    assert len(episode.queries) <= budget.max_queries
    assert len(set(episode.queries)) == len(episode.queries)
    assert (episode.answer is not None) == (episode.status == "answered")


def test_the_parser_is_linear_in_long_texts():
    for text in ("<think>" * 100_000, "<answer>" * 100_000, "</answer><search>" * 50_000):
        for form in FORMS:
            tool_format(form).parse(text)


@pytest.mark.parametrize(
    ("text", "answer_", "well"),
    [
        ("<think>a</think><answer>x</answer>", "x", True),
        ("<think>a</think> <answer>x</answer> <answer>y</answer>", "y", False),
        ("<answer>x</answer>", "x", False),
        ("<think>a</think><answer><answer>x</answer>", "x", False),
        ("template opened it</think><answer>x</answer>", "x", False),
        ("<think>no end <answer>x</answer>", "x", False),
        ("<think>a</think><answer>x</answer> and more", "x", False),
        ("<think>a</think><answer>x</answer><search>q</search>", "x", False),
        ("<think>a</think><answer>5 &lt; 6</answer>", "5 < 6", True),
        ("<think><answer>z</answer></think><answer>x</answer>", "x", False),
    ],
)
def test_answers_and_form(text: str, answer_: str, well: bool):
    parsed = tool_format("plain").parse(text)
    assert (parsed.answer, parsed.well_formed) == (answer_, well)


def test_a_call_before_an_answer_is_run():
    _, outcome = step(begin(), "<search>a</search><results>faked</results><answer>x</answer>")
    assert outcome == SearchCall(queries=("a",))
    _, outcome = step(begin("search_r1"), "<search>a</search><answer>x</answer>")
    assert outcome == SearchCall(queries=("a",))
    _, outcome = step(begin("search_r1"), "<answer>x</answer><search>a</search>")
    assert outcome == FinalAnswer(answer="x", ended_by="answer")


def test_a_context_without_room_ends_the_episode():
    searching, _ = step(begin(), call("plain", "a"))
    for state in (begin(), searching):
        episode = to_episode(exhaust(state))
        assert (episode.status, episode.ended_by, episode.answer) == ("no_answer", "tokens", None)


def test_a_small_policy_reads_the_bare_question():
    assert messages(begin("nano", "expand_search")) == [
        {"role": "user", "content": "Who wrote the first program?"}
    ]
    _, outcome = step(begin("nano", "expand_search"), call("nano", "a", "b"))
    assert outcome == SearchCall(queries=("a", "b"))
