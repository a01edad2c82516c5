"""Endpoints that answer in ways of their own: other fields, other types, other addresses."""

import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from live_server import serving
from rewriting import some_turns
from typer.testing import CliRunner

from convsearch.cli.main import app as program
from convsearch.errors import ConfigError, EngineError
from convsearch.files import read_rewrites, write_qrels, write_turns
from convsearch.infer import SamplingParams, infer_rewrites
from convsearch.infer.chat_address import chat_address
from convsearch.infer.openai_engine import OpenaiEngine
from convsearch.passages import write_passages
from convsearch.prompts import PromptStyle
from convsearch.types import Passage

PARAMS = SamplingParams(temperature=0.0, top_p=1.0, max_tokens=33)
CHAT = [{"role": "user", "content": "q"}]


@pytest.fixture
def live() -> Iterator[tuple[str, SimpleNamespace]]:
    """`told` is answered; while `refusals` is above 0 the answer is 429 with `header`."""
    app, told = FastAPI(), SimpleNamespace(answer={}, refusals=0, header=lambda: "", paths=[])

    @app.post("/{path:path}")
    async def complete(path: str, request: Request):
        told.paths.append(str(request.url).split("/", 3)[3])
        if told.refusals:
            told.refusals -= 1
            return JSONResponse({}, 429, headers={"Retry-After": told.header()})
        return JSONResponse(told.answer)

    with serving(app) as url:
        yield url, told


def answer(message: object, usage: object = None) -> dict[str, object]:
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def asked(url: str, style: PromptStyle, path: Path) -> tuple[str, str | None]:
    engine = OpenaiEngine("m", url)
    try:
        rewrites = infer_rewrites(
            some_turns(1), engine, out_path=path, style=style, params=PARAMS, seed=0
        )
    except EngineError:  # the only request of the call
        return "failed", None
    finally:
        engine.close()
    return rewrites[0].status, rewrites[0].text


@pytest.mark.parametrize(
    ("style", "message", "wanted"),
    [
        ("reasoning", {"content": "cost", "reasoning_content": "hm"}, ("ok", "cost")),
        ("reasoning", {"content": "cost", "reasoning": "hm"}, ("ok", "cost")),
        ("instruct", {"content": "<rewrite>cost</rewrite>", "reasoning": "hm"}, ("ok", "cost")),
        (
            "instruct",
            {"content": "<think>a</think>\n<rewrite>cost</rewrite>", "reasoning": "hm"},
            ("ok", "cost"),
        ),
        ("cot", {"content": "Query: cost", "reasoning": ["a", {"text": "b"}]}, ("ok", "cost")),
        ("plain", {"content": "cost", "reasoning_content": "hm"}, ("ok", "cost")),
        ("plain", {"content": [{"type": "text", "text": "cost"}]}, ("ok", "cost")),
        ("reasoning", {"content": None, "reasoning_content": "cut off"}, ("malformed", None)),
        ("plain", {"content": None}, ("failed", None)),
        ("plain", None, ("failed", None)),
    ],
)
def test_a_thought_apart_from_the_answer_is_joined_for_styles_that_expect_one(
    live, tmp_path: Path, style: PromptStyle, message: object, wanted: tuple[str, str | None]
) -> None:
    url, told = live
    told.answer = answer(message)
    assert asked(url, style, tmp_path / "o.jsonl") == wanted


@pytest.mark.parametrize("count", ["5", None, 5.5, -1, True, [], {}])
def test_what_is_no_number_of_tokens_counts_as_none(live, count: object) -> None:
    url, told = live
    told.answer = answer({"content": "a"}, {"completion_tokens": count, "prompt_tokens": 7})
    [made] = OpenaiEngine("m", url).generate([CHAT], PARAMS, [0])
    assert (made.text, made.num_tokens, made.prompt_tokens) == ("a", 0, 7)


@pytest.mark.parametrize("body", [{"choices": None}, {"choices": []}, [], {"choices": [1]}])
def test_what_is_no_completion_is_a_failed_request(live, body: object) -> None:
    url, told = live
    told.answer = body
    [made] = OpenaiEngine("m", url).generate([CHAT], PARAMS, [0])
    assert "not a chat completion" in str(made.error)


@pytest.mark.parametrize("is_date", [False, True])
def test_what_is_asked_for_in_retry_after_is_waited(live, is_date: bool) -> None:
    url, told = live
    told.answer, told.refusals = answer({"content": "a"}), 1
    told.header = lambda: formatdate(time.time() + 3, usegmt=True) if is_date else "2"
    start = time.monotonic()
    [made] = OpenaiEngine("m", url).generate([CHAT], PARAMS, [0])
    assert made.text == "a"
    assert 1.8 < time.monotonic() - start < 30


def test_refusals_are_borne_until_the_deadline_and_not_longer(live) -> None:
    url, told = live
    told.answer, told.refusals = answer({"content": "a"}), 3
    [made] = OpenaiEngine("m", url).generate([CHAT], PARAMS, [0])
    assert made.text == "a", "four tries did not do before"
    told.refusals, told.header = 99, lambda: "60"
    start = time.monotonic()
    [made] = OpenaiEngine("m", url, deadline_s=2.0).generate([CHAT], PARAMS, [0])
    assert "429" in str(made.error)
    assert time.monotonic() - start < 30, "a wait beyond the deadline is not begun"


@pytest.mark.parametrize(
    ("given", "asked_at"),
    [
        ("http://h", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/api/paas/v4/chat/completions", "http://h/api/paas/v4/chat/completions"),
        ("http://h/x/chat/completions?api-version=1", "http://h/x/chat/completions?api-version=1"),
        ("http://h/v1?key=a", "http://h/v1/chat/completions?key=a"),
        ("http://[::1]:8/v1", "http://[::1]:8/v1/chat/completions"),
    ],
)
def test_addresses(given: str, asked_at: str) -> None:
    assert chat_address(given).url == asked_at


@pytest.mark.parametrize("url", ["h/v1", "ftp://h", "http://", "127.0.0.1:8001"])
def test_what_is_no_address_is_a_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with http"):
        chat_address(url)


def data_set(folder: Path, count: int) -> Path:
    turns = some_turns(count)
    write_turns(folder / "turns.jsonl", turns)
    write_passages(folder / "corpus.jsonl", [Passage(doc_id="d", title="", text="cost")])
    write_qrels(folder / "qrels.trec", {turn.qid: {"d": 1} for turn in turns})
    return folder


def test_where_every_request_failed_the_command_fails_and_keeps_its_work(
    live, tmp_path: Path
) -> None:
    url, told = live
    told.answer = {"choices": []}
    out = tmp_path / "o.jsonl"
    words = ["infer", "--dataset", str(data_set(tmp_path / "set", 3)), "--split", "train"]
    words += ["--engine", "openai", "--engine-url", url, "--model", "m", "--prompt", "plain"]
    failed = CliRunner().invoke(program, [*words, "--out", str(out)])
    assert isinstance(failed.exception, EngineError)
    assert "no answer to any of 3 requests" in str(failed.exception)
    assert not out.exists()
    told.answer = answer({"content": "cost"})
    again = CliRunner().invoke(program, [*words, "--out", str(out), "--retry-failed"])
    assert again.exit_code == 0, again.output
    assert {rewrite.status for rewrite in read_rewrites(out)} == {"ok"}
