"""The endpoint engine against a real HTTP server that misbehaves on demand."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from live_server import serving, until
from rewriting import some_turns

from convsearch.errors import ConfigError, EngineError
from convsearch.infer import SamplingParams, infer_rewrites
from convsearch.infer.openai_engine import OpenaiEngine

PARAMS = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=33)


def endpoint() -> tuple[FastAPI, SimpleNamespace]:
    """`behaviour` maps a word of the prompt to what happens to that request. None is answered
    before so many are there as `together` says."""
    app = FastAPI()
    seen = SimpleNamespace(
        bodies=[], headers=[], tries=Counter(), behaviour={}, now=0, most=0, together=0, ids={}
    )

    @app.post("/v1/chat/completions")
    async def complete(request: Request):
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        seen.bodies.append(body)
        seen.headers.append(dict(request.headers))
        seen.tries[prompt] += 1
        seen.now += 1
        seen.most = max(seen.most, seen.now)
        while seen.most < seen.together:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        seen.now -= 1
        what = next((does for word, does in seen.behaviour.items() if word in prompt), "answer")
        if what == "hang":
            await asyncio.sleep(600)
        if what == "busy once" and seen.tries[prompt] == 1:
            return JSONResponse({"error": "slow down"}, status_code=429)
        if isinstance(what, int):
            return JSONResponse({"error": f"that is {what}"}, status_code=what)
        if what == "html":
            return JSONResponse(["not", "a", "completion"])
        content = None if what == "empty" else f"<think>a</think>\n<rewrite>{prompt} b</rewrite>"
        choice, more = {"message": {"content": content}}, {}
        if body.get("return_token_ids"):
            more["prompt_token_ids"] = seen.ids["prompt_token_ids"]
            choice["token_ids"] = seen.ids["choice"]
        return {"choices": [choice], "usage": {"completion_tokens": 7}, **more}

    return app, seen


@pytest.fixture
def live() -> Iterator[tuple[str, SimpleNamespace]]:
    app, seen = endpoint()
    with serving(app) as url:
        yield url, seen


def chats(*prompts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


def test_answers_come_back_by_position_with_everything_sent(live, monkeypatch):
    url, seen = live
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-the-test")
    engine = OpenaiEngine("a-model", url, concurrency=3)
    prompts = [f"p{i}" for i in range(12)]
    found = engine.generate(chats(*prompts), PARAMS, list(range(100, 112)))
    assert [g.text for g in found] == [
        f"<think>a</think>\n<rewrite>{p} b</rewrite>" for p in prompts
    ]
    assert all(g.num_tokens == 7 and g.error is None for g in found)
    assert seen.most <= 3
    by_prompt = {body["messages"][0]["content"]: body for body in seen.bodies}
    assert by_prompt["p5"] == {
        "model": "a-model",
        "messages": [{"role": "user", "content": "p5"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 33,
        "seed": 105,
    }
    assert {h["authorization"] for h in seen.headers} == {"Bearer secret-of-the-test"}
    assert "secret" not in json.dumps(engine.identity)


def test_ids_are_asked_for_only_where_wanted(live):
    url, seen = live
    seen.ids = {"prompt_token_ids": [1, 2], "choice": [3]}
    [plain] = OpenaiEngine("m", url).generate(chats("p"), PARAMS, [0])
    assert (plain.prompt_ids, plain.ids) == (None, None)
    [told] = OpenaiEngine("m", url, tells_ids=True).generate(chats("p"), PARAMS, [0])
    assert (told.prompt_ids, told.ids) == ((1, 2), (3,))
    seen.ids = {"prompt_token_ids": None, "choice": "3"}
    [other] = OpenaiEngine("m", url, tells_ids=True).generate(chats("p"), PARAMS, [0])
    assert (other.text, other.prompt_ids, other.ids) == (told.text, None, None)


def test_no_key_no_header(live, monkeypatch):
    url, seen = live
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    OpenaiEngine("m", url).generate(chats("p"), PARAMS, [0])
    assert "authorization" not in seen.headers[0]


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_in_any_form(live, tail: str):
    url, _ = live
    assert OpenaiEngine("m", url + tail).generate(chats("p"), PARAMS, [0])[0].error is None


def test_one_failed_request_is_a_value_and_the_rest_is_answered(live):
    url, seen = live
    seen.behaviour = {"bad": 400, "down": 503, "odd": "html", "mute": "empty", "slow": "hang"}
    engine = OpenaiEngine("m", url, attempts=2, deadline_s=4.0)
    found = engine.generate(
        chats("fine", "bad", "down", "odd", "mute", "slow"), PARAMS, list(range(6))
    )
    errors = [g.error for g in found]
    assert errors[0] is None
    for error, said in zip(
        errors[1:], ["HTTP 400", "HTTP 503", "not a chat", "no text", "within 4 s"], strict=True
    ):
        assert error is not None
        assert said in error
    assert seen.tries["bad"] == 1  # refused for good: not tried again
    assert seen.tries["down"] == 2  # as often as was said


def test_threads_share_one_cap(live):
    url, seen = live
    seen.together = 3
    engine = OpenaiEngine("m", url, concurrency=3)
    with ThreadPoolExecutor(4) as pool:
        made = [
            pool.submit(engine.generate, chats(*(f"p{i}{j}" for j in range(5))), PARAMS, range(5))
            for i in range(4)
        ]
        texts = [[g.text for g in each.result()] for each in made]
    assert [t[4].count(f"p{i}4") for i, t in enumerate(texts)] == [1] * 4
    assert seen.most == 3
    before = threading.active_count()
    engine.close()
    until(lambda: threading.active_count() < before, "the end of its thread")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so do these tests then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_wait_and_the_requests(live):
    url, seen = live
    seen.behaviour = {"slow": "hang"}
    engine = OpenaiEngine("m", url, concurrency=1)
    began = time.monotonic()

    def interrupt() -> None:
        until(lambda: bool(seen.tries), "the first request")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        engine.generate(chats("slow", "later"), PARAMS, [0, 1])
    engine.close()
    assert time.monotonic() - began < 60  # the endpoint would have hung for ten minutes
    assert list(seen.tries) == ["slow"]


def test_a_busy_endpoint_is_asked_again(live):
    url, seen = live
    seen.behaviour = {"p": "busy once"}
    found = OpenaiEngine("m", url).generate(chats("p1", "p2"), PARAMS, [0, 1])
    assert [g.error for g in found] == [None, None]
    assert set(seen.tries.values()) == {2}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_the_run_with_a_sentence(live, status: int):
    url, seen = live
    seen.behaviour = {"p": status}
    with pytest.raises(EngineError, match=rf"{url}.*HTTP {status}.*OPENAI_API_KEY"):
        OpenaiEngine("m", url).generate(chats("p1", "p2"), PARAMS, [0, 1])


def test_a_dead_endpoint_stops_the_run_and_keeps_the_journal(tmp_path: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    engine = OpenaiEngine("m", url, attempts=2)
    out = tmp_path / "rewrites.jsonl"
    options = {"out_path": out, "style": "nano", "params": PARAMS, "seed": 0, "batch_size": 2}
    with pytest.raises(EngineError, match=rf"{url}.*not one of 2 requests reached it.*run again"):
        infer_rewrites(some_turns(4), engine, **options)
    assert not out.exists()


def test_a_failed_request_is_a_failed_record_that_can_be_retried(live, tmp_path: Path):
    url, seen = live
    turns = some_turns(6)
    seen.behaviour = {turns[2].question: 500}
    engine = OpenaiEngine("m", url, attempts=1)
    options = {
        "out_path": tmp_path / "rewrites.jsonl",
        "style": "nano",
        "params": PARAMS,
        "seed": 0,
        "batch_size": 4,
    }
    first = infer_rewrites(turns, engine, **options)
    assert [r.status for r in first] == ["ok", "ok", "failed", "ok", "ok", "ok"]
    seen.behaviour = {}
    seen.bodies.clear()
    retried = infer_rewrites(turns, engine, retry_failed=True, **options)
    assert {r.status for r in retried} == {"ok"}
    assert len(seen.bodies) == 1


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="must begin with http"):
        OpenaiEngine("m", "localhost:8000")
