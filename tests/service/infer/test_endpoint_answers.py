"""Answers of endpoints that break types or tell the thought apart, and addresses in any form."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rewriting import some_turns
from scripted_endpoint import GOOD, Reply, completion, scripted

from convsearch.errors import ConfigError
from convsearch.files import read_rewrites
from convsearch.infer import Generation, SamplingParams, infer_rewrites
from convsearch.infer.chat_address import chat_address
from convsearch.infer.chat_answers import read_completion
from convsearch.infer.openai_engine import OpenaiEngine
from convsearch.prompts import PromptStyle
from convsearch.types import Rewrite

PARAMS = SamplingParams(temperature=0.5, max_tokens=33)


def rewrites(bodies: Sequence[object], style: PromptStyle, folder: Path) -> list[Rewrite]:
    """What `infer` makes of these answers, one after the other."""
    with scripted(lambda _, number: Reply(body=bodies[number])) as seen:
        engine = OpenaiEngine("m", seen.url, concurrency=1)
        out = folder / "o.jsonl"
        turns = some_turns(len(bodies))
        infer_rewrites(turns, engine, out_path=out, style=style, params=PARAMS, seed=0)
        engine.close()
    return read_rewrites(out)


def read(body: object) -> Generation:
    return read_completion(body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "apart",
    [
        {"reasoning_content": "so"},
        {"reasoning": "so"},
        {"reasoning_content": None, "reasoning": "so"},
        {"reasoning": [{"type": "reasoning.text", "text": "so"}]},
        {"reasoning": {"content": "so"}},
        {"reasoning_content": ["s", {"text": "o"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": [{"text": "so"}]}]},
    ],
)
def test_a_thought_apart_is_joined_where_the_style_expects_one(apart: dict, tmp_path: Path):
    [found] = rewrites([completion("Kallsund ferry cost", **apart)], "reasoning", tmp_path)
    assert (found.status, found.text) == ("ok", "Kallsund ferry cost")
    assert found.response == "<think>so</think>\nKallsund ferry cost"


@pytest.mark.parametrize(
    ("style", "content"),
    [
        ("instruct", "\n<rewrite>Kallsund ferry cost</rewrite>"),
        ("nano", "<rewrite>Kallsund ferry cost</rewrite>"),
        ("cot", "**Query**: Kallsund ferry cost"),
        ("plain", "Kallsund ferry cost"),
        ("pseudo_document", "Kallsund ferry cost"),
        ("instruct", GOOD),
    ],
)
def test_every_style_reads_an_answer_whose_thought_is_apart(
    style: PromptStyle, content: str, tmp_path: Path
):
    thought = "Query: draft, <rewrite>"[: 12 if style in ("instruct", "nano") else None]
    [found] = rewrites([completion(content, reasoning_content=thought)], style, tmp_path)
    assert (found.status, found.text) == ("ok", "Kallsund ferry cost")
    assert (thought in found.response) == (style in ("instruct", "nano", "cot") and content != GOOD)


@pytest.mark.parametrize("style", ["instruct", "nano", "cot", "reasoning", "plain"])
def test_an_answer_that_was_cut_in_its_thought_is_malformed(style: PromptStyle, tmp_path: Path):
    thought = "so\nQuery: draft\n<rewrite>draft</rewrite>"
    bodies = [
        completion(None, reasoning_content=thought),
        completion("", reasoning=thought),
        completion([], reasoning=thought),
        {"choices": [{"message": {"content": None}, "finish_reason": "length"}]},
        completion(""),
    ]
    found = rewrites([*bodies, completion(None), completion()], style, tmp_path)
    assert [r.status for r in found[:5]] == ["malformed"] * 5
    assert found[5].status == "failed"
    assert "no text content" in (found[5].error or "")


@pytest.mark.parametrize(
    ("content", "text", "thought"),
    [
        ([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}], "a b", ""),
        (["a", " b"], "a b", ""),
        ([{"type": "output_text", "text": "a"}, {"type": "image_url"}, None, 5], "a", ""),
        ({"type": "text", "text": "a"}, "a", ""),
        ([{"type": "text", "text": {"value": 5}}, {"type": "text", "text": "a"}], "a", ""),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "so"}]},
                {"type": "text", "text": "a"},
            ],
            "a",
            "so",
        ),
        ([{"type": "reasoning", "text": "so"}], "", "so"),
    ],
)
def test_content_in_parts(content: object, text: str, thought: str):
    found = read(completion(content))
    assert (found.error, found.text, found.thought) == (None, text, thought)


@pytest.mark.parametrize(
    "count", ["5", 5.0, 5.5, -5, None, True, [5], {"a": 5}, "many"], ids=lambda value: repr(value)
)
def test_what_is_no_count_of_tokens_counts_as_none(count: object, tmp_path: Path):
    usage = {"completion_tokens": count, "prompt_tokens": count}
    [odd, right] = rewrites(
        [completion(usage=usage), completion(usage={"completion_tokens": 5})], "nano", tmp_path
    )
    assert (odd.status, odd.num_tokens) == ("ok", 0)
    assert right.num_tokens == 5
    assert read(completion(usage=usage)).prompt_tokens == 0


@pytest.mark.parametrize("usage", [None, "5", 5, [], [{"completion_tokens": 5}]])
def test_usage_of_another_type_is_none(usage: object):
    body = {**json.loads(json.dumps(completion())), "usage": usage}
    assert (read(body).error, read(body).num_tokens) == (None, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"<html>gateway</html>",
        b"[" * 100_000,
        b'{"usage": ' + b"1" * 5000 + b"}",
        None,
        [],
        "text",
        5,
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": "a"},
        {"choices": [None]},
        {"choices": ["a"]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "a"}]},
        {"choices": [{"message": [{"content": "a"}]}]},
        {"choices": [{"message": {}}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": True, "reasoning": 5}}]},
        {"error": {"message": "overloaded", "code": 529}},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_what_is_no_completion_fails_that_request_alone(body: object, tmp_path: Path):
    bad, good = rewrites([body or b"null", completion()], "nano", tmp_path)
    assert bad.status == "failed"
    assert bad.error is not None
    assert bad.error.startswith(("not a chat completion", "the answer has no text content"))
    assert good.status == "ok"


def test_fields_that_do_not_matter_may_be_anything():
    body = json.loads(json.dumps(completion()))
    for finish in (None, 5, ["length"], {}):
        body["choices"][0]["finish_reason"] = finish
        assert (read(body).error, read(body).is_cut) == (None, False)
    del body["choices"][0]["finish_reason"]
    assert read(body).error is None
    body |= {"id": None, "prompt_token_ids": [1, True], "model": 5}
    body["choices"][0] |= {"token_ids": [1, -2], "index": "zero", "logprobs": "x"}
    assert (read(body).error, read(body).prompt_ids, read(body).ids) == (None, None, None)
    assert read(b"\xef\xbb\xbf" + json.dumps(body).encode()).text == GOOD
    assert read(rb'{"choices": [{"message": {"content": "a \ud83c"}}]}').text == "a ?"
    assert read(b'{"choices": [{"message": {"content": "a"}, "logprobs": NaN}]}').text == "a"


ADDRESSES = [
    ("http://h", "http://h/v1/chat/completions"),
    ("http://h/", "http://h/v1/chat/completions"),
    (" http://h:8000/v1/ ", "http://h:8000/v1/chat/completions"),
    ("HTTP://h/v1", "http://h/v1/chat/completions"),
    ("http://h/proxy", "http://h/proxy/v1/chat/completions"),
    ("http://h/api/paas/v4", "http://h/api/paas/v4/chat/completions"),
    ("http://h/v1beta/openai/", "http://h/v1beta/openai/chat/completions"),
    ("http://h/api/paas/v4/chat/completions", "http://h/api/paas/v4/chat/completions"),
    ("http://h/chat/completions", "http://h/chat/completions"),
    ("http://h/chat/completions/", "http://h/chat/completions"),
    ("http://h/chat/completions?api-version=1", "http://h/chat/completions?api-version=1"),
    ("http://h/v1?api-version=1&x=a%20b", "http://h/v1/chat/completions?api-version=1&x=a%20b"),
    ("http://h?a=1", "http://h/v1/chat/completions?a=1"),
    ("https://[::1]:8/v1", "https://[::1]:8/v1/chat/completions"),
]


@pytest.mark.parametrize(("given", "url"), ADDRESSES)
def test_addresses(given: str, url: str):
    assert chat_address(given).url == url
    assert chat_address(url).url == url


def test_what_is_sent_arrives_at_the_path_and_with_the_query_of_the_address():
    with scripted(lambda _, number: Reply()) as seen:
        for tail in ("/v1", "/api/paas/v4/chat/completions", "/chat/completions?api-version=1"):
            engine = OpenaiEngine("m", seen.url + tail)
            [answer] = engine.generate([[{"role": "user", "content": "p"}]], PARAMS, [0])
            engine.close()
            assert answer.text == GOOD
    assert seen.paths == [
        "/v1/chat/completions",
        "/api/paas/v4/chat/completions",
        "/chat/completions?api-version=1",
    ]


def test_a_password_in_the_address_is_sent_and_not_told():
    address = chat_address("http://me:secret@h/v1?a=1")
    assert address.url == "http://me:secret@h/v1/chat/completions?a=1"
    assert address.shown == "http://h/v1/chat/completions?a=1"


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8000", "h/v1", "", "http://", "http:///v1", "ftp://h", "http://h:port",
        "http://h:99999", "http://[::1", "http://a..b/v1", "http://h\x00", f"http://{'a' * 64}.de",
    ],
)  # fmt: skip
def test_what_is_no_address_is_a_sentence(given: str):
    with pytest.raises(ConfigError, match="must begin with http:// or https:// and name a host"):
        OpenaiEngine("m", given)


def test_a_key_that_no_header_carries_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with (
        scripted(lambda _, number: Reply()) as seen,
        pytest.raises(ConfigError, match="OPENAI_API_KEY must be one line") as refused,
    ):
        OpenaiEngine("m", seen.url).generate([[{"role": "user", "content": "p"}]], PARAMS, [0])
    assert "two" not in str(refused.value)


def test_a_password_in_what_is_no_address_is_not_told():
    with pytest.raises(ConfigError) as error:
        chat_address("http://me:secret@h:x/v1")
    assert "secret" not in str(error.value)
