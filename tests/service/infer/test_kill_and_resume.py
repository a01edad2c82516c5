"""A run that is really killed, and taken up again, gives the bytes of an unbroken one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rewriting

from convsearch.files import read_rewrites
from convsearch.infer.journal import journal_path


class Runs:
    """Inference runs, one process each, over words without blanks."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, rewriting.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, engine: str, model: str, pause_s: float, *outs: Path) -> int:
        """Its process id."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(" ".join([engine, model, str(pause_s), *map(str, outs)]) + "\n")
        self._parent.stdin.flush()
        return int(self.wait_for("pid "))

    def wait_for(self, line: str) -> str:
        """What stands after these words of a line; the line before the end of the run."""
        assert self._parent.stdout is not None
        for said in self._parent.stdout:
            if said.startswith(line):
                return said[len(line) :].strip()
            if said.startswith("ended"):
                break
        pytest.fail(f"the run ended without saying {line!r}")

    def close(self) -> None:
        self._parent.communicate(timeout=60)


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    opened = Runs()
    yield opened
    opened.close()


@pytest.mark.parametrize("engine", ["echo", "transformers"])
def test_killed_and_resumed_equals_unbroken(
    engine: str, tmp_path: Path, taught_model: Path, runs: Runs
):
    model = "-" if engine == "echo" else str(taught_model)
    out = tmp_path / "broken" / "rewrites.jsonl"
    killed = runs.start(engine, model, 60, out)
    runs.wait_for("block 4/26")
    os.kill(killed, signal.SIGKILL)
    assert runs.wait_for("ended ") == str(-signal.SIGKILL)
    assert not out.exists()
    kept = journal_path(out).read_text(encoding="utf-8").splitlines()
    assert len(kept) == 1 + 4
    with journal_path(out).open("a") as journal:
        journal.write(kept[1][:37])  # what a kill in the middle of a write leaves

    unbroken = tmp_path / "unbroken" / "rewrites.jsonl"
    runs.start(engine, model, 0, out, unbroken)
    runs.wait_for("block 4/26")  # the first block is not made again
    runs.wait_for("block 0/26")
    assert runs.wait_for("ended ") == "0"

    assert out.read_bytes() == unbroken.read_bytes()
    assert not journal_path(out).exists()
    rewrites = read_rewrites(out)
    assert [(r.qid, r.candidate) for r in rewrites] == [
        (f"q{i}", c) for i in range(13) for c in (0, 1)
    ]
    if engine == "transformers":
        assert len({r.response for r in rewrites}) > 10  # samples, not one answer again and again
