"""A package that is read-only and a user without a HOME: everything works, nothing is kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import ROOT

CALLS = """
import numpy as np
from retriever_server.bm25.kernels import _lower_bound
import retriever_server.bm25.part, retriever_server.dense.counting, retriever_server.dense.kernels
print(_lower_bound(np.array([1, 3, 5]), 0, 3, 4))
"""


@pytest.fixture
def closed_package(tmp_path: Path) -> Path:
    """`retriever_server` as in a read-only image: where caches go, there is a file in the way,
    which stops root as well."""
    package = tmp_path / "retriever_server"
    shutil.copytree(
        ROOT / "retriever_server", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("")
    return tmp_path


def run(code: str, packages: Path, **env: str) -> subprocess.CompletedProcess[str]:
    named = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    without = {name: value for name, value in os.environ.items() if name not in named}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={
            **without,
            "PYTHONPATH": f"{packages}{os.pathsep}{ROOT / 'src'}",
            "HOME": "/dev/null/nobody",
            **env,
        },
        cwd=packages,
        capture_output=True,
        text=True,
        check=False,
    )


def test_loops_are_compiled_where_nothing_can_be_kept(closed_package: Path) -> None:
    done = run(CALLS, closed_package)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1


def test_a_folder_that_is_named_keeps_them(closed_package: Path, tmp_path: Path) -> None:
    done = run(CALLS, closed_package, NUMBA_CACHE_DIR=str(tmp_path / "kept"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    assert any((tmp_path / "kept").rglob("*.nbc"))


@pytest.mark.parametrize("command", [["--help"], ["grpo", "--help"]])
def test_commands_need_no_home(command: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.argv[1:] = {command}; from convsearch.cli.main import main; main()"
    done = run(code, ROOT)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
