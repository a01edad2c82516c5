"""`python3 retriever_server/server.py` and the child process of the pipeline, as users run them."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import psutil
import pytest
from live_server import DOOR, ROOT, START_S, door, refusal
from small_corpus import random_passages, write_corpus

from convsearch.errors import RetrieverError
from convsearch.retrieval.client import RetrieverClient
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.process import ServerProcess


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `index` and `qrels.trec`."""
    folder = tmp_path_factory.mktemp("door")
    build_bm25_index(write_corpus(folder, random_passages(50)), folder / "index")
    (folder / "qrels.trec").write_text("q1 0 p1 1\nq2 0 p2 1\n")
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_flags_of_the_original_serve_and_a_signal_ends_it(
    world: Path, number: signal.Signals
) -> None:
    flags = ["--index_path", str(world / "index"), "--trec_path", str(world / "qrels.trec")]
    with door(*flags, "--retriever_name", "bm25") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        body = {"queries": ["amber", "xyzzy"], "query_ids": ["q1", "q1"], "topk": 100}
        answer = httpx.post(f"{url}/retrieve", json=body)
        assert answer.status_code == 200
        assert answer.json()["result"][1] == -1
        process.send_signal(number)
        assert process.wait(START_S) == 0


def run_door(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DOOR, *flags], cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False
    )


def test_the_program_itself_ends_with_code_two(world: Path) -> None:
    ended = run_door("--index_path", str(world / "nothing"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--index_path", "{w}/nothing"], "nothing: not an index folder"),
        (["--index_path", "{w}/index", "--trec_path", "{w}/no.trec"], "no.trec: no such file"),
        (["--index_path", "{w}/index", "--retriever_name", "ance"], "does not fit"),
        (["--index_path", "{w}/index", "--trec_path", "{w}/foreign.trec"], "1 of 2 gold passages"),
        (["--index_path", "{w}/index", "--trec_path", "{w}/bad.trec"], "bad.trec:2: expected 4"),
        (
            ["--index_path", "{w}/index", "--host", "192.0.2.1", "--allow-unauthenticated"],
            "cannot listen on 192.0.2.1:8000",
        ),
        (["--index_path", "{w}/index", "--host", "0.0.0.0"], "there is no API key"),
        (["--index_path", "{w}/index", "--host", "::"], "--allow-unauthenticated"),
        (["--index_path", "{w}/index", "--api_key_file", "{w}/no.key"], "no.key: the API key"),
        (["--index_path", "{w}/index", "--index", "default={w}/index"], "two indexes are called"),
        (["--index_path", "{w}/index", "--deadline_s", "0"], "--deadline_s must be above 0"),
        (["--index_path", "{w}/index", "--log_file", "{w}/no/log"], "the log cannot be written"),
        (["--index_path", "{w}/index", "--port", "99999"], "cannot listen on 127.0.0.1:99999"),
        (["--index_path", "{w}/index", "--port", "many"], "argument --port: invalid int"),
        (["--index_path", "{w}/index", "--retriever_name", "bm52"], "invalid choice: 'bm52'"),
        (["--trec_path", "{w}/qrels.trec"], "name an index: --index_path"),
    ],
)
def test_bad_input_is_a_sentence_and_code_two(world: Path, flags: list[str], sentence: str) -> None:
    (world / "foreign.trec").write_text("q1 0 p1 1\nq2 0 elsewhere 1\n")
    (world / "bad.trec").write_text("q1 0 p1 1\nq2 0 p2\n")
    code, out, said = refusal([flag.format(w=world) for flag in flags])
    assert (code, out) == (2, "")
    assert sentence in said


def test_with_a_key_it_listens_everywhere_and_tells_the_key_to_nobody(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRIEVER_API_KEY", "correct-horse-battery")
    index, log = str(world / "index"), tmp_path / "log.jsonl"
    with door("--index_path", index, "--host", "0.0.0.0", "--log_file", str(log)) as (process, url):
        address = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.post(f"{address}/retrieve", json={"query": "amber"}).status_code == 401
        with RetrieverClient(address) as client:
            assert len(client.search(["amber"], 3)[0]) == 3
        with (
            RetrieverClient(address, api_key="wrong") as client,
            pytest.raises(RetrieverError, match="answered 401: this server needs its API key"),
        ):
            client.search(["amber"], 3)
        process.terminate()
        assert process.wait(START_S) == 0
        assert process.stderr is not None
        assert "correct-horse" not in process.stderr.read()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [401, 200, 401]
    assert "correct-horse" not in log.read_text()


def test_one_process_serves_train_and_test(world: Path) -> None:
    index, qrels = world / "index", world / "qrels.trec"
    flags = ["--index", f"train={index}", "--index", f"test={index}", "--qrels", f"test={qrels}"]
    with door(*flags) as (_, url):
        with RetrieverClient(f"{url}/retrieve?index=test") as client:
            assert len(client.ranks_by_qid(["amber"], ["q1"], 50)) == 1
        with RetrieverClient(url, index="train") as client:
            assert client.passages(["p1"])[0].doc_id == "p1"
            with pytest.raises(RetrieverError, match="has no qrels"):
                client.ranks_by_qid(["amber"], ["q1"], 50)


def test_a_taken_port_is_named(world: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = refusal(["--index_path", str(world / "index"), "--port", str(port)])
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in said


def test_the_cli_serves_the_same(world: Path) -> None:
    program = "from convsearch.cli.serve import command; import typer; typer.run(command)"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--index", f"train={world / 'index'}", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("ready: "))
    ready = httpx.get(line.split()[1] + "/readyz").json()
    assert (ready["num_passages"], [*ready["indexes"]]) == (50, ["train"])
    process.terminate()
    assert process.wait(START_S) == 0
    process.stderr.close()


def test_a_child_server_is_ready_when_start_returns_and_gone_after(
    world: Path, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "server.log"
    with ServerProcess() as server:
        url = server.start(world / "index", world / "qrels.trec", log)
        pid = server.pid
        assert pid is not None
        assert httpx.get(f"{url}/readyz").status_code == 200
        with RetrieverClient(url) as client:
            assert len(client.ranks_by_qid(["amber"] * 3, ["q1", "q2", "q1"], 50)) == 3
        with pytest.raises(RetrieverError, match="running already"):
            server.start(world / "index", None, log)
    assert server.pid is None
    assert not psutil.pid_exists(pid)
    assert url in log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz")


def test_a_child_server_that_cannot_start_shows_its_log(world: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with ServerProcess() as server:
        with pytest.raises(RetrieverError) as caught:
            server.start(tmp_path / "nowhere", None, log)
        assert server.pid is None
    assert "ended with code 2" in str(caught.value)
    assert f"end of its log {log}" in str(caught.value)
    assert "not an index folder" in str(caught.value)


def test_a_child_server_that_is_too_slow_is_stopped(world: Path, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with ServerProcess() as server:
        with pytest.raises(RetrieverError, match=r"not ready within 0\.05 s"):
            server.start(world / "index", None, tmp_path / "server.log", ready_timeout_s=0.05)
        assert server.pid is None
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_an_error_in_the_block_stops_the_server(world: Path, tmp_path: Path) -> None:
    pids: list[int | None] = []

    def interrupted() -> None:
        with ServerProcess() as server:
            server.start(world / "index", None, tmp_path / "server.log")
            pids.append(server.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [pid] = pids
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="dying with the parent is a Linux feature")
def test_the_server_dies_with_a_parent_that_is_killed(world: Path, tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from retriever_server.process import ServerProcess
        with ServerProcess() as server:
            server.start(Path({str(world / "index")!r}), None, Path({str(tmp_path / "log")!r}))
            print(server.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    parent = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pid, deadline = int(parent.stdout), time.monotonic() + 30
    while _runs(pid):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Zombies count as ended: who adopted them may be slow to bury them."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_with_a_dead_parent_does_not_start(world: Path) -> None:
    nobody = str(os.getpid() + 10**6)
    ended = run_door("--index_path", str(world / "index"), "--port", "0", "--parent_pid", nobody)
    assert ended.returncode == 0
    assert "ready" not in ended.stderr
