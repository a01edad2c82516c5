"""The command as a process, with a real model; our own endpoint engine as its client."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from live_server import started
from rewriting import some_turns
from tiny_model import CHAT_TEMPLATE

from convsearch.cli.main import main
from convsearch.errors import EngineError
from convsearch.infer import SamplingParams, open_engine
from convsearch.infer.openai_engine import OpenaiEngine
from convsearch.prompts import rewrite_messages
from convsearch.prompts.asking import asking_of, write_asking
from convsearch.serving.naming import served_name

CONVSEARCH = [sys.executable, "-c", "from convsearch.cli.main import main; main()"]
SERVE = [*CONVSEARCH, "serve-rewriter", "--port", "0"]


def end(process: subprocess.Popen[str], number: int) -> None:
    """The signal ends it quietly, and everything that it started."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(number)
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    _, alive = psutil.wait_procs(family[1:], timeout=10)
    assert alive == []


def test_the_endpoint_engine_gets_what_the_model_itself_would_say(
    taught_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    key = tmp_path / "key"
    key.write_text("secret\n")
    chats = [rewrite_messages(turn, "nano") for turn in some_turns(5)]
    params = SamplingParams(temperature=0.8, max_tokens=24)
    direct = open_engine("transformers", str(taught_model), device="cpu")
    expected = direct.generate(chats, params, range(5))
    command = [*SERVE, "--model", str(taught_model), "--device", "cpu", "--prompt", "nano"]
    command += ["--served-name", "tiny", "--api-key-file", str(key)]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with started(command) as (process, url):
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        with pytest.raises(EngineError, match="401"):
            OpenaiEngine("tiny", url).generate(chats[:1], params, [0])
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        assert OpenaiEngine("tiny", url).generate(chats, params, range(5)) == expected
        with pytest.raises(EngineError, match=r"HTTP 404.*other.*is not here"):
            OpenaiEngine("other", url).generate(chats[:1], params, [0])
        turn = some_turns(1)[0]
        body = {"question": turn.question, "seed": 0, "temperature": 0.8, "max_tokens": 24}
        answer = httpx.post(
            f"{url}/rewrite", json=body, headers={"X-API-Key": "secret"}, trust_env=False
        ).json()
        assert answer["response"] == expected[0].text
        end(process, signal.SIGINT)


def test_ctrl_c_ends_the_engines_of_a_pool_too():
    with started([*SERVE, "--engine", "echo", "--workers", "2"]) as (process, url):
        answer = httpx.post(f"{url}/rewrite", json={"question": "why so?"}, trust_env=False)
        assert (answer.json()["query"], answer.json()["status"]) == ("why so?", "ok")
        workers = psutil.Process(process.pid).children()
        assert len(workers) >= 2
        end(process, signal.SIGTERM)


def test_the_folder_says_how_the_model_is_asked_and_what_it_is_called(
    taught_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two engines in processes of their own; prompts are read beside them."""
    folder = tmp_path / "run" / "model"
    shutil.copytree(taught_model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHAT_TEMPLATE
    )
    asking = asking_of("nano", max_response_tokens=24, dataset="toy", stage="sft")
    write_asking(folder, asking)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [*SERVE, "--model", str(folder), "--device", "cpu", "--workers", "2"]
    with started(command) as (process, url), httpx.Client(base_url=url, trust_env=False) as client:
        client.timeout = httpx.Timeout(60)
        assert client.get("/v1/models").json()["data"][0]["id"] == "toy-sft"
        body = {"question": "amber birch", "temperature": 0}
        answer = client.post("/rewrite", json=body).json()
        assert answer["status"] == "ok", answer
        for name in ("toy-sft", "model"):
            said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
            chat = {"model": name, "messages": said}
            refused = client.post("/v1/chat/completions", json=chat)
            assert refused.status_code == 400
            assert "roles must alternate" in refused.json()["error"]["message"]
            chat["messages"] = said[:1]
            found = client.post("/v1/chat/completions", json=chat).json()
            assert found["usage"]["completion_tokens"] <= 24
        assert client.get("/health").status_code == 200
        end(process, signal.SIGINT)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (asking_of("nano", dataset="mini, toy", stage="grpo"), "mini+toy-grpo"),
        (asking_of("nano", dataset="mini"), "try"),
        (None, "try"),
    ],
)
def test_a_folder_that_every_training_has_is_no_name(tmp_path: Path, told, name: str):
    for folder in (tmp_path / "try" / "model", tmp_path / "try" / "actor" / "huggingface"):
        folder.mkdir(parents=True)
        assert served_name(str(folder), told) == name
    own = tmp_path / "try" / "mine"
    own.mkdir()
    assert served_name(str(own), told) == "mine"
    assert served_name("owner/model", told) == "owner/model"
    assert served_name("model", told) == "model"  # no folder here


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "REWRITER_API_KEY"),
        (["--shots", "7"], "shots=7"),
        (["--max-tokens", "5000"], "above the limit"),
        (["--api-key-file", "/no/such/file"], "cannot be read"),
    ],
)
def test_bad_flags_are_a_sentence_and_code_2(
    flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["convsearch", "serve-rewriter", "--engine", "echo", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
