"""Folders appear whole or not at all."""

from pathlib import Path

import pytest

from convsearch.data.staging import staged_folder
from convsearch.errors import DataError


def test_files_arrive_together_and_others_stay(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    (out / "old").write_text("old")
    (out / "kept").write_text("kept")
    with staged_folder(out) as staging:
        (staging / "old").write_text("new")
        assert (out / "old").read_text() == "old"
    assert {p.name: p.read_text() for p in out.iterdir()} == {"old": "new", "kept": "kept"}
    assert list(out.parent.iterdir()) == [out]


def fail_half_way(out: Path) -> None:
    with staged_folder(out) as staging:
        (staging / "half").write_text("half")
        raise RuntimeError("stop")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        fail_half_way(tmp_path / "out")
