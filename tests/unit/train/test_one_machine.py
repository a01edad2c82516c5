"""What a training on one machine is told, and what killed ones leave behind."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from convsearch.listening import SOCKETS_VARIABLE
from convsearch.train.one_machine import (
    OWNER,
    PREFIX,
    make_scratch_folder,
    private_environment,
    scratch_folder,
    sweep,
)

PRINTS = "import os; print(os.environ.get('RAY_TMPDIR'), os.environ.get('RAY_ADDRESS'))"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's own have paths that are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_everything_stays_on_this_machine(tmp_path: Path) -> None:
    env = private_environment(tmp_path, {"NCCL_SOCKET_IFNAME": "eth7"})
    assert env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert env["DIST_INIT_METHOD"] == "loopback://"
    assert env["GLOO_SOCKET_IFNAME"].startswith("lo")
    assert "NCCL_SOCKET_IFNAME" not in env
    assert env["RAY_TMPDIR"] == env[SOCKETS_VARIABLE] == str(tmp_path)
    tokens = {private_environment(tmp_path, {})["RAY_AUTH_TOKEN"] for _ in range(2)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 64


@pytest.mark.parametrize("home", ["/dev/null/nobody", "/nonexistent"])
def test_a_home_that_takes_no_files_is_replaced(home: str, tmp_path: Path) -> None:
    assert private_environment(tmp_path, {"HOME": home})["HOME"] == str(tmp_path)


def test_a_home_that_takes_files_stays(tmp_path: Path) -> None:
    (tmp_path / "with" / ".cache").mkdir(parents=True)
    for home in (tmp_path, tmp_path / "with"):
        assert "HOME" not in private_environment(tmp_path, {"HOME": str(home)})


def test_a_scratch_folder_is_closed_to_others_and_goes_with_its_run() -> None:
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    code = (
        "import sys; from convsearch.train import one_machine as m;"
        "import tempfile; tempfile.tempdir = sys.argv[1]; print(m.make_scratch_folder());"
        "sys.stdout.flush(); import os; os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    left = Path(killed.stdout.strip())
    assert (left / OWNER).is_file()
    with scratch_folder() as mine, scratch_folder() as second:
        assert not left.exists()
        assert mine.is_dir()
        assert second.is_dir()


@pytest.mark.parametrize("owner", ["nonsense", ""])
def test_folders_that_are_not_ours_to_judge_stay(tmp_path: Path, owner: str) -> None:
    for name in (f"{PREFIX}a", f"{PREFIX}b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{PREFIX}a" / OWNER).write_text(owner)
    (tmp_path / "other" / OWNER).write_text("999999999 1.00")
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_id_that_was_given_to_another_process_is_not_the_owner(tmp_path: Path) -> None:
    folder = make_scratch_folder()
    (folder / OWNER).write_text(f"{os.getpid()} 1.00")
    sweep(tmp_path)
    assert not folder.exists()


def run_command(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convsearch.train.one_machine", sys.executable, "-c", PRINTS],
        env={**os.environ, "TMPDIR": str(tmp_path), **env},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_recipes_command_runs_privately(tmp_path: Path) -> None:
    done = run_command(tmp_path, RAY_ADDRESS="")
    assert done.stdout.startswith(str(tmp_path / PREFIX))
    assert done.stderr == ""


def test_a_ray_that_runs_already_is_used_as_it_is(tmp_path: Path) -> None:
    done = run_command(tmp_path, RAY_ADDRESS="10.0.0.1:6379")
    assert done.stdout.split() == ["None", "10.0.0.1:6379"]
    assert done.stderr.startswith("warning: RAY_ADDRESS names")
