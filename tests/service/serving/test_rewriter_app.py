"""The rewriter service over HTTP, with an engine that answers as the prompt says."""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from live_server import serving, until

from convsearch.errors import EngineError
from convsearch.infer import Generation, SamplingParams
from convsearch.prompts import asked_question
from convsearch.serving.app import create_app
from convsearch.serving.settings import ServingSettings
from convsearch.types import ChatMessage, derive_seed

DEFAULTS = SamplingParams(temperature=0.7, max_tokens=32)


class WordEngine:
    """Answers with tags around the question, the seed and what sampling was asked for."""

    identity = {"engine": "words"}  # noqa: RUF012 - as the protocol has it

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.params: list[SamplingParams] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.is_broken = False

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        questions = [asked_question(chat) for chat in chats]
        self.batches.append(questions)
        self.params.append(params)
        assert self.go_on.wait(30)
        if self.is_broken:
            raise EngineError("the checkpoint is damaged")
        return [
            Generation(error="the prompt has 9 tokens and the model reads at most 8")
            if "long" in q
            else Generation(
                text="no tags" if "odd" in q else f"<think>t</think>\n<rewrite>{q} {s}</rewrite>",
                num_tokens=7,
                prompt_tokens=11,
                is_cut="cut" in q,
            )
            for q, s in zip(questions, seeds, strict=True)
        ]

    def close(self) -> None:
        pass


@contextmanager
def service(**settings) -> Iterator[tuple[WordEngine, httpx.Client]]:
    engine = WordEngine()
    values = {"model": "words", "style": "instruct", "defaults": DEFAULTS, **settings}
    app = create_app(engine, ServingSettings(**values))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield engine, client
        engine.go_on.set()


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[WordEngine, httpx.Client]]:
    with service() as found:
        yield found


def chat_body(content: str = "why?", **more) -> dict[str, object]:
    return {"model": "words", "messages": [{"role": "user", "content": content}], **more}


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def test_a_rewrite_is_the_query(live):
    engine, client = live
    history = [{"role": "user", "text": "which moon?"}, {"role": "assistant", "text": "Titan"}]
    body = {"question": "how big?", "history": history, "seed": 5, "max_tokens": 9, "top_p": 0.5}
    answer = client.post("/rewrite", json=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "query": "how big? 5",
        "status": "ok",
        "rewrite": "how big? 5",
        "think": "t",
        "response": "<think>t</think>\n<rewrite>how big? 5</rewrite>",
        "error": None,
        "model": "words",
        "seed": 5,
        "num_tokens": 7,
    }
    assert engine.params[-1] == SamplingParams(temperature=0.7, top_p=0.5, max_tokens=9)


@pytest.mark.parametrize(("question", "status"), [("odd?", "malformed"), ("long?", "failed")])
def test_what_cannot_be_used_falls_back_to_the_question(live, question: str, status: str):
    _, client = live
    found = client.post("/rewrite", json={"question": question}).json()
    assert (found["query"], found["status"], found["rewrite"]) == (question, status, None)
    assert (found["error"] is not None) == (status == "failed")
    assert found["response"] == ("no tags" if status == "malformed" else "")


def test_each_style_reads_its_own_answers():
    with service(style="plain", shots=2) as (_, client):
        found = client.post("/rewrite", json={"question": "odd?"}).json()
        assert (found["status"], found["query"]) == ("ok", "no tags")
        assert client.post("/rewrite", json={"question": "so?"}).json()["status"] == "malformed"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "question"),
        ({"question": "  "}, "empty"),
        ({"question": "a", "history": [{"role": "agent", "text": "b"}]}, 'role "user"'),
        ({"question": "a", "history": [{"role": "user", "text": "b"}]}, "odd number"),
        ({"question": "a", "temprature": 1}, "temprature: is not known here"),
        ({"question": "a", "max_tokens": 5000}, "at most 4096"),
        ({"question": "a", "top_p": 0}, "top_p"),
        ([1], "the request"),
    ],
)
def test_bad_rewrite_requests_are_400_with_a_sentence(live, body, said: str):
    _, client = live
    message = error_of(client.post("/rewrite", json=body), 400)
    assert said in message


def test_a_chat_completion_has_the_published_form(live):
    engine, client = live
    parts = [{"type": "text", "text": "why "}, {"type": "text", "text": "so?"}]
    body = {
        "model": "words",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts},
        ],
        "n": 3,
        "seed": 8,
        "temperature": 0,
        "max_completion_tokens": 12,
        "tools": [],
        "logprobs": False,
        "user": "someone",
    }
    answer = client.post("/v1/chat/completions", json=body).json()
    assert (answer["object"], answer["model"]) == ("chat.completion", "words")
    seeds = [8, derive_seed(8, "n", 1), derive_seed(8, "n", 2)]
    assert [c["message"]["content"] for c in answer["choices"]] == [
        f"<think>t</think>\n<rewrite>why so? {seed}</rewrite>" for seed in seeds
    ]
    assert [(c["index"], c["finish_reason"]) for c in answer["choices"]] == [
        (i, "stop") for i in range(3)
    ]
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 21, "total_tokens": 32}
    assert engine.params[-1] == SamplingParams(temperature=0, max_tokens=12)
    assert client.get("/v1/models").json()["data"][0]["id"] == "words"


def test_stop_strings_cut_and_the_limit_is_told(live):
    _, client = live
    for stop in ("</think>", ["zzz", "</think>", "</rewrite>"]):
        choice = client.post("/v1/chat/completions", json=chat_body("cut?", stop=stop)).json()[
            "choices"
        ][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("<think>t", "stop")
    choice = client.post("/v1/chat/completions", json=chat_body("cut?")).json()["choices"][0]
    assert choice["finish_reason"] == "length"


def test_a_stream_holds_what_the_answer_would(live):
    _, client = live
    body = chat_body(seed=3, n=2, stream=True, stream_options={"include_usage": True})
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = [
        line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.strip()
    ]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    texts, ends = ["", ""], ["", ""]
    for choice in (c for chunk in chunks for c in chunk["choices"]):
        texts[choice["index"]] += choice["delta"].get("content", "")
        ends[choice["index"]] = choice["finish_reason"] or ends[choice["index"]]
    whole = client.post("/v1/chat/completions", json=chat_body(seed=3, n=2)).json()
    assert texts == [c["message"]["content"] for c in whole["choices"]]
    assert ends == ["stop", "stop"]
    assert chunks[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ({"model": "other"}, 404, "'words' is"),
        ({"n": 17}, 400, "at most 16"),
        ({"max_tokens": 4097}, 400, "at most 4096"),
        ({"messages": []}, 400, "messages"),
        ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format is not supported"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty is not supported"),
        ({"stop": ""}, 400, "stop"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_k": 3}, 400, "top_k: is not known here"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "user", "content": "long"}]}, 400, "reads at most 8"),
        ({"messages": [{"role": "user", "content": "long"}], "stream": True}, 400, "reads at most"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(live, more: dict, status: int, said: str):
    _, client = live
    answer = client.post("/v1/chat/completions", json=chat_body(**more))
    assert said in error_of(answer, status)


def test_paths_and_bodies_that_are_none(live):
    _, client = live
    assert "POST /rewrite does" in error_of(client.get("/nothing"), 404)
    assert "GET /rewrite" in error_of(client.get("/rewrite"), 405)
    assert error_of(client.post("/rewrite", content=b"{"), 400)


def test_requests_that_wait_are_answered_together():
    with service(max_batch=3) as (engine, client), ThreadPoolExecutor(8) as threads:
        engine.go_on.clear()

        def ask(question: str) -> str:
            return client.post("/rewrite", json={"question": question, "seed": 1}).json()["query"]

        first = threads.submit(ask, "first")
        until(lambda: bool(engine.batches), "the first batch")
        others = [threads.submit(ask, f"q{i}") for i in range(4)]
        greedy = threads.submit(
            client.post, "/v1/chat/completions", json=chat_body("greedy", temperature=0)
        )
        assert client.get("/health").json() == {"status": "ok", "model": "words"}
        engine.go_on.set()
        assert first.result(30) == "first 1"
        assert [f.result(30) for f in others] == [f"q{i} 1" for i in range(4)]
        assert greedy.result(30).status_code == 200
    assert all(len(batch) <= 3 for batch in engine.batches)
    assert ["greedy"] in engine.batches  # other sampling is another batch
    assert sorted(q for batch in engine.batches for q in batch) == [
        "first", "greedy", "q0", "q1", "q2", "q3",
    ]  # fmt: skip


def test_an_engine_that_fails_is_503_and_health_tells():
    with service() as (engine, client):
        engine.is_broken = True
        answer = client.post("/rewrite", json={"question": "why?"})
        assert "the checkpoint is damaged" in error_of(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 503
        engine.is_broken = False
        assert client.post("/rewrite", json={"question": "why?"}).status_code == 200
        assert client.get("/health").status_code == 200


def test_a_full_house_is_503():
    with service(max_in_flight=1) as (engine, client), ThreadPoolExecutor(1) as threads:
        engine.go_on.clear()
        slow = threads.submit(client.post, "/rewrite", json={"question": "slow?"})
        until(lambda: bool(engine.batches), "the first batch")
        full = client.post("/rewrite", json={"question": "why?"})
        assert "1 requests are being worked on" in error_of(full, 503)
        engine.go_on.set()
        assert slow.result(30).status_code == 200


def test_a_deadline_is_504_and_gives_the_room_back():
    with service(deadline_s=0.5, max_in_flight=1) as (engine, client):
        engine.go_on.clear()
        slow = client.post("/rewrite", json={"question": "slow?"})
        assert "within 0.5 s" in error_of(slow, 504)
        engine.go_on.set()

        def is_answered() -> bool:
            return client.post("/rewrite", json={"question": "why?"}).status_code == 200

        until(is_answered, "an answer within the deadline")


def test_the_key_and_the_size_of_a_request():
    with service(api_key="secret", max_body_bytes=300) as (engine, client):
        assert client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "secre"}):
            answer = client.post("/rewrite", json={"question": "why?"}, headers=headers)
            assert "needs its API key" in error_of(answer, 401)
        assert client.get("/v1/models").status_code == 401
        assert engine.batches == []
        key = {"Authorization": "Bearer secret"}
        assert client.post("/rewrite", json={"question": "a"}, headers=key).status_code == 200
        assert client.get("/v1/models", headers={"X-API-Key": "secret"}).status_code == 200
        big = client.post("/rewrite", json={"question": "a" * 300}, headers=key)
        assert "larger than 300 bytes" in error_of(big, 413)
