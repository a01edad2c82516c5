"""Requests that are at fault, beside others that are not: a real model, and engines that break."""

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from live_server import serving, until

from convsearch.infer import Engine, Generation, SamplingParams, open_engine
from convsearch.infer.echo_engine import EchoEngine
from convsearch.prompts.asking import asking_of
from convsearch.serving.app import create_app
from convsearch.serving.settings import ServingSettings
from convsearch.types import ChatMessage

ALTERNATING = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As the templates of Gemma and Mistral refuse."""
HALF = "\ud83d"
DEFAULTS = SamplingParams(temperature=0, max_tokens=24)


@contextmanager
def service(engine: Engine, **more) -> Iterator[httpx.Client]:
    values = {"model": "m", "style": "nano", "defaults": DEFAULTS, **more}
    app = create_app(engine, ServingSettings(**values))
    with serving(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def alternating(taught_model: Path, tmp_path_factory) -> Engine:
    folder = tmp_path_factory.mktemp("alternating") / "model"
    shutil.copytree(taught_model, folder)
    (folder / "chat_template.jinja").write_text(ALTERNATING)
    return open_engine("transformers", str(folder), device="cpu")


@pytest.fixture(scope="module")
def live(alternating: Engine) -> Iterator[httpx.Client]:
    with service(alternating) as client:
        yield client


def sent(body: object) -> dict:
    """As bytes: httpx refuses halves of pairs, JSON does not."""
    content = json.dumps(body).encode()
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def chat(*messages: tuple[str, str], **more) -> dict[str, object]:
    said = [{"role": role, "content": content} for role, content in messages]
    return {"model": "m", "messages": said, **more}


def beside_good_ones(client: httpx.Client, path: str, bad: object) -> httpx.Response:
    """Sends it between good requests, all of which are answered; the service stays healthy."""
    good = {"question": "amber birch", "max_tokens": 24, "temperature": 0}
    with ThreadPoolExecutor(8) as threads:
        before = [threads.submit(client.post, "/rewrite", **sent(good)) for _ in range(3)]
        answer = threads.submit(client.post, path, **sent(bad))
        after = [threads.submit(client.post, "/rewrite", **sent(good)) for _ in range(3)]
        assert [f.result(60).status_code for f in (*before, *after)] == [200] * 6
    assert client.get("/health").status_code == 200
    return answer.result(60)


def sentence(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "bad",
    [
        {"question": f"how big {HALF}?"},
        {"question": "how big?", "history": [
            {"role": "user", "text": HALF}, {"role": "agent", "text": f"a{HALF}b"}]},
        {"question": "nul \x00 and \uffff and \u202e"},
    ],
)  # fmt: skip
def test_texts_that_no_tokenizer_reads_are_cleaned(live: httpx.Client, bad: dict):
    answer = beside_good_ones(live, "/rewrite", {**bad, "max_tokens": 24, "temperature": 0})
    assert answer.status_code == 200
    assert answer.json()["status"] in ("ok", "malformed")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (chat(("user", "a"), ("user", "b")), "user, user (Conversation roles must alternate"),
        (chat(("assistant", "a")), "must alternate"),
        (chat(("system", "be brief"), ("user", "a")), "System role not supported"),
        (chat(("user", "amber " * 3000)), "tokens and the model reads at most 1024"),
        (chat(("user", "a"), n=4, max_tokens=0), "max_tokens"),
        (chat(("user", "a"), max_tokens=10**30), "at most 4096"),
        (chat(("user", "a"), temperature=10**400), "temperature"),
        (chat(("user", "a"), temperature=float("nan")), "temperature"),
        (chat(("user", "a"), top_p=float("nan")), "top_p"),
        (chat(("user", "a"), seed=2**63), "seed"),
        (chat(("tool", "a")), "role"),
        (chat(("user", "a"), **{HALF: 1}), "?: is not known here"),
        ({**chat(), "messages": [{"role": "user", "content": None}]}, "content"),
        (
            {**chat(), "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "0.content.0.t",
        ),
        ({**chat(), "messages": []}, "messages"),
        ({**chat(), "messages": None}, "messages"),
        ({**chat(("user", "a")), "model": HALF}, "is not here"),
    ],
)
def test_a_bad_chat_is_its_own_400(live: httpx.Client, bad: dict, said: str):
    answer = beside_good_ones(live, "/v1/chat/completions", bad)
    assert said in sentence(answer, 404 if bad["model"] == HALF else 400)


def test_a_question_that_is_too_long_is_answered_with_itself_and_the_two_numbers(live):
    question = "amber " * 9000
    long = [{"role": "user", "text": question}, {"role": "agent", "text": "b"}] * 2
    for body in ({"question": "amber", "history": long}, {"question": "x" * 900_000}):
        answer = beside_good_ones(live, "/rewrite", body)
        if answer.json()["status"] == "failed":
            assert "tokens and the model reads at most 1024" in answer.json()["error"]
            assert answer.json()["query"] == body["question"]


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6, 1e308])
@pytest.mark.parametrize("top_p", [5e-324, 1e-45, 1.0])
def test_extremes_of_sampling_are_drawn_from(live, temperature: float, top_p: float):
    body = chat(("user", "amber birch"), temperature=temperature, top_p=top_p, max_tokens=8)
    assert beside_good_ones(live, "/v1/chat/completions", body).status_code == 200


def test_null_is_absent_in_every_field(live: httpx.Client):
    optional = (
        "n temperature top_p max_tokens max_completion_tokens stop seed stream stream_options user "
        "tools tool_choice response_format logprobs top_logprobs logit_bias frequency_penalty "
        "presence_penalty metadata store service_tier parallel_tool_calls reasoning_effort"
    )
    nulls = dict.fromkeys(optional.split())
    body = chat(("user", "amber birch"), seed=1)
    plain = live.post("/v1/chat/completions", **sent({**body, "max_tokens": 8}))
    answer = live.post("/v1/chat/completions", **sent({**nulls, **body, "max_tokens": 8}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == plain.json()["choices"]
    body = {**body, "stream": True, "stream_options": {"include_usage": None}}
    assert live.post("/v1/chat/completions", **sent(body)).status_code == 200
    nulls = dict.fromkeys(("history", "temperature", "top_p", "max_tokens", "seed"))
    assert live.post("/rewrite", **sent({**nulls, "question": "amber"})).status_code == 200


def test_an_answer_may_be_sent_back_as_it_came(live: httpx.Client):
    nothing = dict.fromkeys(("refusal", "tool_calls", "function_call", "audio", "name"))
    own = {"role": "assistant", "content": "birch", "annotations": [], **nothing}
    body = chat(("user", "amber"))
    body["messages"] = [{"role": "user", "content": "a"}, own, {"role": "user", "content": "b"}]
    assert live.post("/v1/chat/completions", **sent(body)).status_code == 200
    own["content"] = None  # as beside a call of a tool
    assert live.post("/v1/chat/completions", **sent(body)).status_code == 200


def test_history_takes_the_fields_of_a_chat(live: httpx.Client):
    answers = [
        live.post("/rewrite", json={"question": "amber", "temperature": 0, "history": history})
        for history in (
            [{"role": "user", "text": "birch"}, {"role": "agent", "text": "castle"}],
            [{"role": "user", "content": "birch"}, {"role": "assistant", "content": "castle"}],
            [
                {"role": "user", "content": [{"type": "text", "text": "birch"}], "text": None},
                {"role": "assistant", "text": "castle"},
            ],
        )
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["response"] for answer in answers}) == 1
    for message in ({"role": "user"}, {"role": "user", "text": "a", "content": "b"}):
        answer = live.post("/rewrite", json={"question": "amber", "history": [message]})
        assert sentence(answer) == 'history.0: give "text" or "content"'


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b'{"question": "a"}', None, 'send one JSON object, with "Content-Type'),
        (b'{"question": "a"}', "application/x-www-form-urlencoded", "send one JSON object"),
        (b'"a"', "application/json", "send one JSON object"),
        (b'{"question":', "application/json", "the request: Expecting value"),
        (b'{"question": "a", "seed": ' + b"9" * 5000 + b"}", "application/json", "the request"),
        (b'{"question": ' + b"[" * 5000 + b"]" * 5000 + b"}", "application/json", "the request"),
        (b'{"question": ' + b"[" * 900 + b"]" * 900 + b"}", "application/json", ""),
        (b"\xff\xfe\xfd", "application/json", "the request"),
        (b"", "application/json", ""),
    ],
)
def test_what_is_no_request_gets_a_sentence(live, content: bytes, kind: str | None, said: str):
    headers = {"Content-Type": kind} if kind else {}
    assert said in sentence(live.post("/rewrite", content=content, headers=headers))


def test_a_chat_of_which_the_template_makes_nothing(taught_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(taught_model, folder)
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    with service(open_engine("transformers", str(folder), device="cpu")) as client:
        answer = beside_good_ones(client, "/v1/chat/completions", chat(("user", "")))
        assert "makes no token of it" in sentence(answer)


def test_a_style_that_the_template_refuses_is_said_at_the_start(alternating: Engine, caplog):
    with service(alternating, style="instruct") as client:
        assert "/rewrite will refuse every question" in caplog.text
        assert "System role not supported" in caplog.text
        answer = client.post("/rewrite", json={"question": "amber"})
        assert "System role not supported" in sentence(answer)
        assert client.get("/health").status_code == 200
        assert client.post("/v1/chat/completions", **sent(chat(("user", "a")))).status_code == 200


class Garbled(EchoEngine):
    """Answers in half a form."""

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        return [Generation(text="<think> fried hall y</rewrite>") for _ in chats]


def test_most_of_the_first_answers_malformed_is_said_once(caplog: pytest.LogCaptureFixture):
    with service(Garbled(), style="instruct", told=asking_of("nano")) as client:
        for i in range(30):
            few = {"max_tokens": 2} if i < 10 else {}  # too few for any answer: not counted
            body = {"question": "amber", **few}
            assert client.post("/rewrite", json=body).json()["status"] == "malformed"
            assert ("first 20 answers are malformed" in caplog.text) == (i == 29)
    assert len(caplog.records) == 1
    assert "trained with prompt style nano and is asked in instruct" in caplog.text


class Fragile(EchoEngine):
    """Breaks on a batch with "poison" in it, and on any once it is dead."""

    def __init__(self) -> None:
        self.is_dead = False
        self.error: Exception = RuntimeError("index out of range")
        self.sizes: list[int] = []

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        self.sizes.append(len(chats))
        if self.is_dead or any("poison" in m["content"] for chat in chats for m in chat):
            raise self.error
        return super().generate(chats, params, seeds)


def test_a_prompt_that_breaks_the_engine_harms_nobody_else():
    engine = Fragile()
    with service(engine) as client:
        answer = beside_good_ones(client, "/rewrite", {"question": "poison", "temperature": 0})
        message = sentence(answer, 500)
        assert "on this prompt alone" in message
        assert "index out of range" in message
        answer = beside_good_ones(client, "/v1/chat/completions", chat(("user", "poison"), n=3))
        assert "on this prompt alone" in sentence(answer, 500)


def test_the_death_of_the_engine_is_not_looked_for_in_the_prompts():
    engine = Fragile()
    with service(engine) as client, ThreadPoolExecutor(8) as threads:
        engine.is_dead = True
        bodies = [{"question": f"amber {i}"} for i in range(8)]
        answers = list(threads.map(lambda body: client.post("/rewrite", json=body), bodies))
        assert {sentence(answer, 503) for answer in answers} == {
            "the engine failed: RuntimeError: index out of range"
        }
        assert sum(size == 1 for size in engine.sizes) >= len(engine.sizes) // 2  # a probe each
        assert len(engine.sizes) <= 16
        assert client.get("/health").status_code == 503
        assert client.post("/rewrite", json={"question": "a", "seed": -1}).status_code == 400
        assert client.get("/health").status_code == 503
        engine.is_dead = False
        assert client.post("/rewrite", json={"question": "a"}).status_code == 200
        assert client.get("/health").status_code == 200


def test_an_engine_that_answers_again_is_noticed_by_asking_for_its_health_alone():
    engine = Fragile()
    with service(engine) as client:
        engine.is_dead = True
        assert client.post("/rewrite", json={"question": "a"}).status_code == 503
        assert client.get("/health").status_code == 503
        engine.is_dead = False
        until(lambda: client.get("/health").status_code == 200, "the engine's return")
        assert client.post("/rewrite", json={"question": "a"}).status_code == 200
