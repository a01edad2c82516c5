"""`doctor` tells good from bad, and says what to do about the bad."""

import os
from pathlib import Path

import pytest

from convsearch.cli import checks
from convsearch.cli.checks import FAIL, OK, WARN


@pytest.mark.parametrize(
    ("version", "state"), [((3, 9), FAIL), ((3, 10), OK), ((3, 12), OK), ((3, 13), FAIL)]
)
def test_python(version: tuple[int, int], state: str) -> None:
    assert checks.python_version(version).state == state


@pytest.mark.parametrize(
    ("installed", "state", "advice"),
    [
        ("0.9.1", OK, ""),
        ("0.8.0", FAIL, "pip install verl==0.9.1"),
        (None, FAIL, "pip install -e '.[train]'"),
    ],
)
def test_pins(installed: str | None, state: str, advice: str) -> None:
    finding = checks.pinned("verl", installed, "0.9.1")
    assert finding.state == state
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("installed", "state"),
    [("2.13.0+cpu", OK), ("2.11.0", OK), ("2.12.0", WARN), (None, FAIL)],
)
def test_torch(installed: str | None, state: str) -> None:
    assert checks.torch_version(installed).state == state


@pytest.mark.parametrize(("gigabytes", "state"), [(1.0, FAIL), (5.0, WARN), (9.0, OK)])
def test_memory(gigabytes: float, state: str) -> None:
    finding = checks.free("free memory", int(gigabytes * 1e9), (3.0, 8.0), "close programs")
    assert finding.state == state
    assert ("close programs" in finding.advice) == (state != OK)


def test_server_that_is_down_is_named() -> None:
    finding = checks.server("http://127.0.0.1:9")
    assert finding.state == FAIL
    assert "127.0.0.1:9" in finding.found
    assert "convsearch serve" in finding.advice


def test_a_ray_of_others_is_a_warning() -> None:
    assert checks.outside_ray({}) == []
    [found] = checks.outside_ray({"RAY_ADDRESS": "10.0.0.1:6379"})
    assert found.state == WARN
    assert "docs/security.md" in found.advice


def test_a_folder_that_takes_no_files_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.takes_files(tmp_path) == []
    # what a read-only file system answers, also to root
    monkeypatch.setattr(os, "access", lambda *_: False)
    [found] = checks.takes_files(tmp_path)
    assert (found.state, "takes no files" in found.found) == ("fail", True)
