"""Downloads from a server that misbehaves: what is under its name is whole and checked."""

import errno
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_files import FaultyFiles, Served, faulty_files

from convsearch.data import transfer
from convsearch.data.catalogue import RawFile
from convsearch.data.download import LOCK_FILE, fetch, read_lock, verify
from convsearch.data.holding import held
from convsearch.data.transfer import DownloadSettings
from convsearch.errors import ConfigError, DataError, DownloadError, MissingFileError

QUICK = DownloadSettings(attempts=3, wait_initial_s=0.001, wait_max_s=0.002, timeout_s=5.0)
CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FaultyFiles]:
    with faulty_files() as running:
        yield running


def file(server: FaultyFiles, *paths: str, **known: object) -> RawFile:
    urls = tuple(server.url(path) for path in paths or ("f.bin",))
    return RawFile(name="f.bin", urls=urls, **known)  # pyright: ignore[reportArgumentType]


def get(server: FaultyFiles, folder: Path, *paths: str, **known: object) -> str:
    """How the one file was checked."""
    (fetched,) = fetch([file(server, *paths, **known)], folder, settings=QUICK)
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.size) == (SHA256, len(CONTENT))
    return fetched.how


def test_first_digest_is_recorded_and_holds_from_then_on(
    server: FaultyFiles, tmp_path: Path
) -> None:
    server.files["f.bin"] = Served(CONTENT)
    assert get(server, tmp_path) == "first"
    assert read_lock(tmp_path)["f.bin"]["sha256"] == SHA256
    assert get(server, tmp_path) == "recorded"
    assert len(server.requests) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", LOCK_FILE, "f.bin"]
    (tmp_path / "f.bin").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DataError, match="differs from what it was at first"):
        fetch([file(server)], tmp_path, settings=QUICK)
    with pytest.raises(DataError, match="differs from what it was at first"):
        verify([file(server)], tmp_path)
    (tmp_path / "f.bin").unlink()
    server.files["f.bin"].content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"instead of {SHA256}"):
        fetch([file(server)], tmp_path, settings=QUICK)
    assert not (tmp_path / "f.bin").exists()


def test_cut_connections_are_resumed_where_they_broke(server: FaultyFiles, tmp_path: Path) -> None:
    server.files["f.bin"] = Served(CONTENT, drop_after=70_000)
    assert get(server, tmp_path, sha256=SHA256, size=len(CONTENT)) == "published"
    ranges = server.ranges("f.bin")
    assert ranges == [None, *(f"bytes={n}-" for n in (70_000, 140_000, 210_000, 280_000))]


def test_a_server_without_ranges_starts_over(server: FaultyFiles, tmp_path: Path) -> None:
    server.files["f.bin"] = Served(CONTENT, drop_after=70_000, drops=2, ranges=False)
    assert get(server, tmp_path, md5=MD5) == "published"


def test_a_server_that_never_gets_further_is_left(server: FaultyFiles, tmp_path: Path) -> None:
    server.files["f.bin"] = Served(CONTENT, drop_after=1000, ranges=False)
    server.files["good"] = Served(CONTENT)
    get(server, tmp_path, "f.bin", "good")
    assert len(server.ranges("f.bin")) == 1 + QUICK.attempts


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (None, "status 404"),
        (Served(CONTENT, status=403), "status 403"),
        (Served(CONTENT, status=503), r"status 503 \(tried 3 times\)"),
        (Served(CONTENT, html=True), "a web page instead of the file"),
        (Served(CONTENT[::-1]), "sha256 .* instead of"),
        (Served(CONTENT[:-1]), "299,999 bytes instead of 300,000"),
    ],
)
def test_the_next_mirror_is_asked(
    server: FaultyFiles, tmp_path: Path, bad: Served | None, told: str
) -> None:
    if bad:
        server.files["bad"] = bad
    server.files["good"] = Served(CONTENT)
    known = {"sha256": SHA256, "size": len(CONTENT)}
    get(server, tmp_path / "two", "bad", "good", **known)
    with pytest.raises(DownloadError, match=told) as ended:
        fetch([file(server, "bad", **known)], tmp_path / "one", settings=QUICK)
    assert str(tmp_path / "one" / "f.bin") in str(ended.value)
    assert not (tmp_path / "one" / "f.bin").exists()


def test_a_truncated_body_is_no_file(server: FaultyFiles, tmp_path: Path) -> None:
    server.files["f.bin"] = Served(CONTENT, length=len(CONTENT) + 5, ranges=False)
    with pytest.raises(DownloadError, match="tried 3 times"):
        fetch([file(server)], tmp_path, settings=QUICK)
    assert not (tmp_path / "f.bin").exists()


def test_an_overloaded_server_is_tried_again(server: FaultyFiles, tmp_path: Path) -> None:
    server.files["f.bin"] = Served(CONTENT, statuses=[503, 429])
    get(server, tmp_path)
    assert len(server.requests) == 3


def test_another_version_is_not_glued_to_the_old_part(server: FaultyFiles, tmp_path: Path) -> None:
    server.files["f.bin"] = Served(CONTENT[::-1], drop_after=50_000, answers=1)
    with pytest.raises(DownloadError, match="status 403"):
        fetch([file(server)], tmp_path, settings=QUICK)
    assert (tmp_path / ".f.bin.part").stat().st_size == 50_000
    server.files["f.bin"] = Served(CONTENT)
    get(server, tmp_path, sha256=SHA256)
    assert server.ranges("f.bin")[-1] == "bytes=50000-"


def test_nobody_listens(tmp_path: Path, server: FaultyFiles) -> None:
    gone = RawFile(name="f.bin", urls=("http://127.0.0.1:9/f.bin", "nonsense://x", "http://[x/f"))
    with pytest.raises(DownloadError) as ended:
        fetch([gone], tmp_path, settings=QUICK)
    assert all(url in str(ended.value) for url in gone.urls)


def test_offline_and_verify_say_what_is_missing(server: FaultyFiles, tmp_path: Path) -> None:
    for call in (lambda: fetch([file(server)], tmp_path, offline=True),
                 lambda: verify([file(server)], tmp_path)):  # fmt: skip
        with pytest.raises(MissingFileError) as ended:
            call()
        assert server.url("f.bin") in str(ended.value)
        assert str(tmp_path / "f.bin") in str(ended.value)
    assert server.requests == []
    (tmp_path / "f.bin").write_bytes(CONTENT)
    (fetched,) = fetch([file(server)], tmp_path, offline=True)
    assert (fetched.how, fetched.sha256) == ("first", SHA256)
    assert verify([file(server)], tmp_path)[0].how == "recorded"


def test_a_file_by_hand_must_be_the_published_one(server: FaultyFiles, tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="differs from what is published: 299,999 bytes"):
        fetch([file(server, size=len(CONTENT), sha256=SHA256)], tmp_path, offline=True)


def test_a_full_disk_is_a_sentence_and_loses_nothing(
    server: FaultyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["f.bin"] = Served(CONTENT, drop_after=70_000)
    monkeypatch.setattr(transfer, "_SPARE_BYTES", 2**62)
    with pytest.raises(DataError, match=r"needs 300,000 more bytes and the disk has"):
        fetch([file(server)], tmp_path, settings=QUICK)
    monkeypatch.undo()

    def full(name: str, done: int, total: int | None) -> None:
        if done > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="No space left on device; make room"):
        fetch([file(server)], tmp_path, settings=QUICK, on_progress=full)
    assert (tmp_path / ".f.bin.part").stat().st_size > 70_000
    get(server, tmp_path)


def test_one_process_at_a_time(server: FaultyFiles, tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(ConfigError, match="another process"):
        fetch([file(server)], tmp_path, settings=QUICK)


def test_a_damaged_record_is_named(server: FaultyFiles, tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("{")
    with pytest.raises(DataError, match=LOCK_FILE):
        fetch([file(server)], tmp_path, settings=QUICK)
    (tmp_path / LOCK_FILE).write_text(json.dumps({"f.bin": {"sha256": SHA256}}))
    server.files["f.bin"] = Served(CONTENT)
    assert get(server, tmp_path) == "recorded"
