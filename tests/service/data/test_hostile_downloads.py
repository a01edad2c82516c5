"""Downloads into a folder where somebody put links, and from servers that lie."""

import hashlib
from pathlib import Path

import pytest
from fake_hub import running_hub
from faulty_files import Served, faulty_files
from huggingface_hub import constants

from convsearch.data.catalogue import RawFile
from convsearch.data.download import DownloadSettings, fetch
from convsearch.errors import DownloadError, HubError
from convsearch.files import atomic_write
from convsearch.hub.catalogue import HubEntry
from convsearch.hub.download import download
from retriever_server.making import held

QUICK = DownloadSettings(attempts=2, wait_initial_s=0.001, wait_max_s=0.002, timeout_s=5.0)
CONTENT = b"content " * 10_000


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious"
    path.write_text("mine")
    return path


def test_links_in_the_folder_are_not_written_through(tmp_path: Path, precious: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in (".f.bin.part", ".f.bin.part.json", ".lock"):
        (folder / name).symlink_to(precious)
    (folder / "f.bin").symlink_to(tmp_path / "nowhere")
    with faulty_files() as server:
        server.files["f.bin"] = Served(CONTENT)
        file = RawFile(name="f.bin", urls=(server.url("f.bin"),), size=len(CONTENT))
        (fetched,) = fetch([file], folder, settings=QUICK)
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (folder / "f.bin").read_bytes() == CONTENT
    assert not (folder / "f.bin").is_symlink()
    assert precious.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_the_users_own_copy_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(CONTENT)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "f.bin").symlink_to(tmp_path / "shared")
    (fetched,) = fetch([RawFile(name="f.bin", urls=("x://y",))], folder, offline=True)
    assert fetched.size == len(CONTENT)


def test_locks_and_temporary_names_of_ours_are_not_written_through(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".out.json.7.tmp").symlink_to(precious)
    with atomic_write(tmp_path / "out.json") as out:
        out.write("{}")
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "lock").symlink_to(precious)
    with held(tmp_path / "i", {}):
        pass
    assert (precious.read_text(), (tmp_path / "out.json").read_text()) == ("mine", "{}")
    assert not (tmp_path / "out.json").is_symlink()


def test_a_server_that_sends_more_than_the_file_has_is_left(tmp_path: Path) -> None:
    with faulty_files() as server:
        server.files["f.bin"] = Served(CONTENT * 100)
        file = RawFile(name="f.bin", urls=(server.url("f.bin"),), size=len(CONTENT))
        with pytest.raises(DownloadError, match="sends more than 80,000 bytes"):
            fetch([file], tmp_path / "raw", settings=QUICK)
    left = sum(path.stat().st_size for path in (tmp_path / "raw").iterdir())
    assert left < 10_000


@pytest.mark.parametrize("name", ["../precious", "a/../../precious", "/etc/precious"])
def test_a_hub_with_names_that_leave_the_folder_deletes_and_writes_nothing(
    name: str, tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    entry = HubEntry(name="m", repo_id="o/m", repo_type="model")
    with running_hub() as hub:
        hub.add("o/m", {"config.json": b"{}", name: b"theirs"})
        with pytest.raises(HubError, match="leaves the folder"):
            download([entry], tmp_path / "to", tmp_path / "lock.json", endpoint=hub.url)
    assert precious.read_text() == "mine"
    assert not (tmp_path / "lock.json").exists()
