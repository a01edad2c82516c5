"""Pinned downloads, against a hub that speaks the real protocol over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, running_hub
from huggingface_hub import constants

from convsearch.errors import DataError, HubError
from convsearch.hub.catalogue import HubEntry
from convsearch.hub.download import Downloaded, download
from convsearch.hub.lock import read_lock

MODEL = HubEntry(name="small", repo_id="someone/small")
DATA = HubEntry(name="rows", repo_id="someone/rows", repo_type="dataset")
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4096}
LOCK = "hub.lock.json"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub() as hub:
        yield hub


def fetch(hub: FakeHub, to: Path, *entries: HubEntry, verify: bool = False) -> list[Downloaded]:
    return download(entries or [MODEL], to, to / LOCK, verify=verify, endpoint=hub.url)


def held(folder: Path, names: dict[str, bytes]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_the_first_download_pins_and_later_ones_obey(hub: FakeHub, tmp_path: Path) -> None:
    first = hub.add("someone/small", FILES)
    rows = hub.add("someone/rows", {"data/train.parquet": b"PAR1" * 9}, kind="datasets")
    done = fetch(hub, tmp_path / "a", MODEL, DATA)
    assert [(d.revision, d.num_files, d.fetched) for d in done] == [(first, 2, 2), (rows, 1, 1)]
    assert held(tmp_path / "a" / "small", FILES) == FILES
    assert (tmp_path / "a" / "rows" / "data" / "train.parquet").read_bytes() == b"PAR1" * 9
    hub.add("someone/small", {**FILES, "config.json": b'{"new": 1}'})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / LOCK).write_bytes((tmp_path / "a" / LOCK).read_bytes())
    fetch(hub, tmp_path / "b")
    assert held(tmp_path / "b" / "small", FILES) == FILES
    assert hub.tokens == {None}


def test_what_is_there_asks_the_hub_for_nothing(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("someone/small", FILES)
    fetch(hub, tmp_path)
    hub.is_down = True
    asked = len(hub.requests)
    assert fetch(hub, tmp_path, verify=True)[0].fetched == 0
    assert len(hub.requests) == asked


@pytest.mark.parametrize("name", list(FILES))
def test_damaged_bytes_are_found_and_fetched_again(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.add("someone/small", FILES)
    fetch(hub, tmp_path)
    path = tmp_path / "small" / name
    path.write_bytes(bytes(len(FILES[name])))
    assert fetch(hub, tmp_path)[0].fetched == 0
    assert fetch(hub, tmp_path, verify=True)[0].fetched == 1
    path.write_bytes(FILES[name][:-1])
    assert fetch(hub, tmp_path)[0].fetched == 1
    assert held(tmp_path / "small", FILES) == FILES


def test_a_connection_that_breaks_off_is_taken_up(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.add("someone/small", FILES)
    hub.cut_at = 400_000
    fetch(hub, tmp_path)
    assert held(tmp_path / "small", FILES) == FILES
    asked = [line for line in hub.requests if line.startswith("GET") and "bytes=" in line]
    assert len(asked) == 1
    assert int(asked[0].split("bytes=")[1].split("-")[0]) >= 300_000


def test_an_interrupted_download_keeps_whole_files_and_the_revision(
    hub: FakeHub, tmp_path: Path
) -> None:
    pinned = hub.add("someone/small", FILES)
    hub.cut_at, hub.dies_when_cut = 400_000, True
    with pytest.raises(HubError, match="the hub answered 500; try again later"):
        fetch(hub, tmp_path)
    assert not (tmp_path / "small" / "model.safetensors").exists()
    assert (tmp_path / "small" / "config.json").read_bytes() == FILES["config.json"]
    assert read_lock(tmp_path / LOCK)["small"].revision == pinned
    left = tmp_path / "small" / ".cache" / "huggingface" / "download" / "x.1234.incomplete"
    left.write_bytes(b"of a process that was killed")
    hub.is_down = False
    hub.add("someone/small", {**FILES, "model.safetensors": b"another one"})
    hub.requests.clear()
    assert fetch(hub, tmp_path)[0].fetched == 1
    assert held(tmp_path / "small", FILES) == FILES
    assert not any("config.json" in line for line in hub.requests)
    assert not left.exists()


def test_other_weights_than_stated_are_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("someone/small", FILES)
    hub.damages = True
    with pytest.raises(HubError, match=r"model\.safetensors arrived with other bytes"):
        fetch(hub, tmp_path)
    hub.damages = False
    fetch(hub, tmp_path)
    assert held(tmp_path / "small", FILES) == FILES


def test_the_same_weights_in_other_formats_stay_there(hub: FakeHub, tmp_path: Path) -> None:
    others = {"pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "tf_model.h5": b"x"}
    hub.add("someone/small", {**FILES, **others, "1_Pooling/config.json": b"{}"})
    fetch(hub, tmp_path)
    names = set(read_lock(tmp_path / LOCK)["small"].files)
    assert names == {*FILES, "1_Pooling/config.json"}
    assert not any((tmp_path / "small" / name).exists() for name in others)


def test_each_failure_is_a_sentence(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="no such repository, or a private one"):
        fetch(hub, tmp_path / "a")
    hub.add("someone/small", FILES)
    hub.gated.add("someone/small")
    with pytest.raises(HubError, match="licence must be accepted"):
        fetch(hub, tmp_path / "b")
    fetch_lock = tmp_path / "b" / LOCK
    record = json.loads(fetch_lock.read_text())
    record["small"]["revision"] = "0" * 40
    fetch_lock.write_text(json.dumps(record))
    with pytest.raises(HubError, match="pinned revision"):
        fetch(hub, tmp_path / "b")
    record["small"]["repo_id"] = "someone/else"
    fetch_lock.write_text(json.dumps(record))
    with pytest.raises(DataError, match="someone/else there, not someone/small"):
        fetch(hub, tmp_path / "b")
    with pytest.raises(HubError, match="cannot be reached"):
        download([MODEL], tmp_path / "c", tmp_path / LOCK, endpoint="http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        fetch(hub, tmp_path / "d")


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"small": 1}', '{"small": {"files": {"../x": {"size": 1}}}}',
        '{"small": {"files": {"x": {}}}}', '{"small": {"files": {}}}',
        '{"small": {"files": {}, "revision": "main", "repo_id": "a/b", "repo_type": "model"}}',
    ],
)  # fmt: skip
def test_a_damaged_lock_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(DataError, match=LOCK):
        download([MODEL], tmp_path, tmp_path / LOCK, endpoint="http://127.0.0.1:1")


def test_a_full_disk_is_seen_before(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("someone/small", FILES)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("convsearch.hub.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(HubError, match="make room"):
        fetch(hub, tmp_path)
