"""A damaged byte that opening does not see: found while the server answers, which then stops."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from live_server import until
from small_corpus import random_passages, write_corpus

from convsearch.errors import RetrieverError
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.integrity import BackgroundCheck
from retriever_server.manifest import PAGE_BYTES, check_files, put_in_place, read_manifest
from retriever_server.process import ServerProcess

ASKED = {"queries": ["a word"], "gold_ids": [["p1"]], "topk": 10}


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("integrity")
    build_bm25_index(write_corpus(folder, random_passages(24_000)), folder / "index")
    return folder / "index"


@pytest.fixture
def damaged(index_dir: Path, tmp_path: Path) -> Path:
    """A copy with one flipped bit between the pages that opening looks at."""
    copy = tmp_path / "damaged"
    shutil.copytree(index_dir, copy)
    largest = max(copy.iterdir(), key=lambda path: path.stat().st_size)
    assert largest.stat().st_size > 10 * PAGE_BYTES
    content = bytearray(largest.read_bytes())
    content[PAGE_BYTES + 1000] ^= 1
    largest.write_bytes(content)
    check_files(read_manifest(copy), copy)
    return copy


@contextmanager
def server(index_dir: Path, log_path: Path, *flags: str) -> Iterator[httpx.Client]:
    with ServerProcess() as running:
        url = running.start(index_dir, None, log_path, flags=flags)
        with httpx.Client(base_url=url) as client:
            yield client


def not_ready(client: httpx.Client) -> str:
    """What `/readyz` says; empty where it is ready, or not there yet."""
    try:
        answer = client.get("/readyz")
    except httpx.TransportError:
        return ""
    return "" if answer.is_success else answer.json()["error"]


def checked(client: httpx.Client, name: str) -> str:
    [line] = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith(f'retriever_index_checked{{index="{name}"}}')
    ]
    return line.split()[1]


def test_a_damaged_index_is_refused_and_the_others_answer(
    index_dir: Path, damaged: Path, tmp_path: Path
) -> None:
    """It may be seen to be ready before the damage is found, or never: both are right."""
    log_path = tmp_path / "log"
    with ServerProcess() as running:
        url = running.launch(index_dir, None, log_path, flags=["--index", f"other={damaged}"])
        with httpx.Client(base_url=url) as client:
            until(lambda: "not what was written" in not_ready(client), "the damage")
            reason = not_ready(client)
            assert reason.startswith("index 'other': ")
            assert "not what was written; copy it again, or rebuild" in reason
            assert "Retry-After" not in client.get("/readyz").headers
            with pytest.raises(RetrieverError, match="cannot become ready") as caught:
                running.wait_ready(url)
            assert f"{reason})" in str(caught.value)
            assert f"end of its log {log_path}" in str(caught.value)
            refused = client.post("/retrieve?index=other", json=ASKED)
            assert (refused.status_code, refused.json()["error"]) == (503, reason.split(": ", 1)[1])
            assert client.post("/passages?index=other", json={"doc_ids": ["p1"]}).status_code == 503
            assert client.post("/retrieve", json=ASKED).status_code == 200
            assert checked(client, "default") == "1.0"
    lines = [json.loads(x) for x in log_path.read_text().splitlines() if x.startswith("{")]
    assert any("ranks since the start may be wrong" in str(line) for line in lines)


def test_a_sound_index_is_read_through_and_served(index_dir: Path, tmp_path: Path) -> None:
    with server(index_dir, tmp_path / "log") as client:
        until(lambda: checked(client, "default") == "1.0", "the end of the check")
        assert client.get("/readyz").status_code == 200
        assert client.post("/retrieve", json=ASKED).status_code == 200


def test_what_was_read_before_serving_is_not_read_again(index_dir: Path, tmp_path: Path) -> None:
    with server(index_dir, tmp_path / "log", "--verify") as client:
        assert "retriever_index_checked{" not in client.get("/metrics").text


def test_a_replaced_index_is_no_damage(
    index_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has the old files open, and those were not seen to be wrong."""
    served, rebuilt = tmp_path / "served", tmp_path / "rebuilt"
    shutil.copytree(index_dir, served)
    build_bm25_index(write_corpus(tmp_path, random_passages(50)), rebuilt)

    class Replaced(BackgroundCheck):
        def _chunks(self, path: Path) -> Iterator[bytes]:
            yield from super()._chunks(path)
            if rebuilt.exists():
                put_in_place(rebuilt, served)

    check = Replaced({"main": [served]}, pace=0)
    with caplog.at_level(logging.WARNING):
        check.start()
        check._thread.join(20)
    assert check.damage("main") is None
    assert "was replaced while it was read" in caplog.text


def test_it_stops_between_two_chunks(index_dir: Path) -> None:
    check = BackgroundCheck({"main": [index_dir]}, pace=1e6)
    check.start()
    until(lambda: check.checked["main"] > 0, "the first chunk")
    check.stop()
    check._thread.join(5)
    assert not check._thread.is_alive()
    assert check.checked["main"] < 1


def test_a_missing_file_is_damage(damaged: Path) -> None:
    max(damaged.iterdir(), key=lambda path: path.stat().st_size).unlink()
    check = BackgroundCheck({"main": [damaged]})
    check.start()
    check._thread.join(20)
    assert "is missing; copy it again" in (check.damage("main") or "")


def test_a_folder_that_is_gone_is_no_damage(damaged: Path) -> None:
    """What the server has mapped is still there."""
    shutil.rmtree(damaged)
    check = BackgroundCheck({"main": [damaged]})
    check.start()
    check._thread.join(20)
    assert check.damage("main") is None
