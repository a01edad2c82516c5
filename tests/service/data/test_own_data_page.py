"""docs/own-data.md does what it says: its files, its commands and its adapter, word for word."""

import json
import re
import shlex
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from live_server import serving

from convsearch.cli.main import main
from convsearch.data.dataset import load_dataset
from convsearch.passages import iter_passages
from convsearch.retrieval.client import RetrieverClient
from convsearch.retrieval.memory import InMemoryRetriever

PAGE = Path(__file__).parents[3] / "docs" / "own-data.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the page's files lie and its first commands were run."""
    monkeypatch.chdir(tmp_path)
    names = ("conversations.jsonl", "passages.jsonl")
    for name, text in zip(names, blocks("json"), strict=True):
        Path(name).write_text(text)
    for line in blocks("bash")[0].splitlines():
        assert run(line, monkeypatch) == 0, line
    return tmp_path


def test_files_and_commands_of_the_page(own: Path) -> None:
    mrr = {}
    for query in ("raw", "history"):
        written = json.loads(Path(f"eval-{query}", "metrics.json").read_text())
        assert written["num_queries"] == 2
        mrr[query] = written["metrics"]["mrr"]
    assert mrr["raw"] < mrr["history"]


def test_so_small_a_set_is_refused_by_the_training(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = blocks("bash")[1].splitlines()
    assert run(f"{line} --show-settings", monkeypatch) == 0
    assert run(line, monkeypatch) == 2
    assert "1 conversations of split 'train' to train on, two or more" in capsys.readouterr().err
    assert not Path("runs").exists()


def elasticsearch(engine: InMemoryRetriever) -> FastAPI:
    """As much of another search engine as the adapter asks for; nothing else answers."""
    app = FastAPI()

    @app.post("/kb/_search")
    def search(asked: dict) -> dict:
        query = asked["query"]["multi_match"]["query"]
        [hits] = engine.search([query], asked["size"])
        return {"hits": {"hits": [{"_id": h.doc_id, "_score": h.score} for h in hits]}}

    return app


def test_the_adapter_before_another_engine(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    truth = InMemoryRetriever(list(iter_passages(load_dataset(Path("mydata")).corpus_path)))
    asked = (["Kallsund ferry cost", "x"], [["p4"], ["p1"]], 10)
    with serving(elasticsearch(truth)) as url:
        monkeypatch.setenv("SEARCH_URL", f"{url}/kb/_search")
        room: dict[str, object] = {}
        exec(compile(code, "adapter.py", "exec"), room)
        app = room["app"]
        assert isinstance(app, FastAPI)
        with serving(app) as adapter:
            assert httpx.get(f"{adapter}/readyz").status_code == 404
            with RetrieverClient(adapter) as client:
                client.wait_ready(5)
                assert client.read_info() is None
                assert client.ranks(*asked) == truth.ranks(*asked)
                assert truth.ranks(*asked)[0] is not None
                found = client.search(["Elsa Brand architect"], 3)
                assert found == truth.search(["Elsa Brand architect"], 3)
            (line,) = blocks("bash")[3].splitlines()
            assert run(line.replace("http://127.0.0.1:9298", adapter), monkeypatch) == 0
    assert json.loads(Path("eval-engine", "metrics.json").read_text())["num_queries"] == 2
