"""Where Ray's sockets go when the folder for temporary files cannot hold them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from convsearch.errors import WriteError
from convsearch.socket_folders import LONGEST_ROOT, SHORT_ROOTS, make_socket_folder, socket_root

RAYS_SOCKET = "cs-12345678/ray/session_2026-12-01_05-17-48_072076_4194304/sockets/plasma_store"
MOST = 103
"""Bytes in the path of a socket on macOS; Linux has four more."""


def test_rays_longest_socket_fits_below_the_longest_root() -> None:
    assert LONGEST_ROOT + 1 + len(RAYS_SOCKET) <= MOST


def test_a_short_folder_of_the_user_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        made = make_socket_folder("cs-")
        assert made.parent == Path(folder)
        assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["a-job-of-a-cluster-that-has-long-names", "ü" * 12, ""])
def test_a_long_path_gives_way_to_a_usual_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    assert str(socket_root()) in SHORT_ROOTS


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="root alone may try to write in /proc"
)
def test_a_folder_that_takes_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(WriteError, match=r"/proc: no folder can be made .*TMPDIR"):
        make_socket_folder("cs-")


NO_ROOM = """
import resource, sys
sys.argv[1:] = ["true"]
from convsearch.train.one_machine import main
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
main()
"""
"""No file may have a byte: what every folder answers on full disks."""


def test_no_folder_at_all_is_a_sentence_and_code_two(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NO_ROOM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: no folder for temporary files takes any (No usable")
    assert ended.stderr.count("\n") == 1
