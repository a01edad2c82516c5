"""The journal on a disk that fills up, cut short by a kill, held by another run."""

import errno
import os
from pathlib import Path

import pytest

from convsearch.errors import ConfigError, DataError, WriteError
from convsearch.infer.journal import Journal, passport_path
from convsearch.types import Rewrite

SETTINGS = {"seed": 1}


def record(number: int, text: str = "a", candidate: int = 0) -> Rewrite:
    return Rewrite(
        qid=f"q{number}", status="ok", text=text, response="", seed=0, candidate=candidate
    )


def full_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Writes fit until `room` bytes are used up, the last of them in part."""
    real, left = os.pwrite, room

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, data[:left], offset)
        left -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.parametrize("room", [0, 1, 37, 150])
def test_a_full_disk_is_a_sentence_and_loses_no_block(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "r.jsonl.journal"
    journal = Journal(path, SETTINGS)
    journal.append([record(0), record(1, "é")])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch, room)
        with pytest.raises(WriteError, match=r"r\.jsonl\.journal.*No space left.*run the same"):
            journal.append([record(2), record(3)])
    assert path.read_bytes() == before
    assert set(journal.places) == {("q0", 0), ("q1", 0)}
    journal.append([record(2)])
    journal.close()
    again = Journal(path, SETTINGS)
    assert list(again.places) == [("q0", 0), ("q1", 0), ("q2", 0)]
    assert '"text": "é"' in again.line(("q1", 0))
    again.close()


def test_a_disk_that_is_full_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full_disk(monkeypatch, 3)
    with pytest.raises(WriteError, match="No space left"):
        Journal(tmp_path / "j", SETTINGS)
    assert (tmp_path / "j").read_bytes() == b""


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_a_kill_cut_short_is_dropped(cut: int, tmp_path: Path):
    path = tmp_path / "j"
    journal = Journal(path, SETTINGS)
    journal.append([record(0)])
    whole = path.read_bytes()
    journal.append([record(1)])
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, SETTINGS)
    assert list(again.places) == [("q0", 0)]
    assert path.read_bytes() == whole
    again.append([record(0, "later")])  # of two records the later one counts
    assert '"later"' in again.line(("q0", 0))
    again.close()


def test_one_run_at_a_time_and_fresh_starts_over(tmp_path: Path):
    path = tmp_path / "j"
    journal = Journal(path, SETTINGS)
    journal.append([record(0)])
    with pytest.raises(ConfigError, match="another run is writing it"):
        Journal(path, SETTINGS, fresh=True)
    assert list(journal.places) == [("q0", 0)]
    journal.close()
    with pytest.raises(ConfigError, match=r"seed \(there 1, now 2\)"):
        Journal(path, {"seed": 2})
    fresh = Journal(path, {"seed": 2}, fresh=True)
    assert fresh.places == {}
    fresh.close()
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(DataError, match="j:2"):
        Journal(path, {"seed": 2})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_sentence(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="Permission denied"):
        Journal(tmp_path / "j", SETTINGS)


@pytest.mark.parametrize(
    ("name", "passport"),
    [
        ("rewrites.jsonl", "rewrites.run.json"),
        ("rewrites.jsonl.gz", "rewrites.jsonl.gz.run.json"),
        ("rewrites.json", "rewrites.json.run.json"),
        ("prompts.parquet", "prompts.run.json"),
        ("t0.7.jsonl", "t0.7.run.json"),
        ("t0.7", "t0.7.run.json"),
        ("rewrites", "rewrites.run.json"),
    ],
)
def test_outputs_of_different_names_have_passports_of_their_own(name: str, passport: str) -> None:
    assert passport_path(Path("runs") / name) == Path("runs") / passport
