"""A run that is really killed, and taken up again, gives the bytes of an unbroken one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rewriting

from convsearch.files import read_rewrites
from convsearch.infer.journal import journal_path


def start(engine: str, model: str, pause_s: float, *outs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, rewriting.__file__, engine, model, str(pause_s), *map(str, outs)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(rewriting.__file__).parent),
        },
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if said.startswith(line):
            return
    pytest.fail(f"the run ended without saying {line!r}")


@pytest.mark.parametrize("engine", ["echo", "transformers"])
def test_killed_and_resumed_equals_unbroken(engine: str, tmp_path: Path, taught_model: Path):
    model = "-" if engine == "echo" else str(taught_model)
    out = tmp_path / "broken" / "rewrites.jsonl"
    with start(engine, model, 60, out) as killed:
        wait_for(killed, "block 4/26")
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(30) == -signal.SIGKILL
    assert not out.exists()
    kept = journal_path(out).read_text(encoding="utf-8").splitlines()
    assert len(kept) == 1 + 4
    with journal_path(out).open("a") as journal:
        journal.write(kept[1][:37])  # what a kill in the middle of a write leaves

    unbroken = tmp_path / "unbroken" / "rewrites.jsonl"
    with start(engine, model, 0, out, unbroken) as resumed:
        wait_for(resumed, "block 4/26")  # the first block is not made again
        wait_for(resumed, "block 0/26")
        for _ in resumed.stdout or []:
            pass
        assert resumed.wait(30) == 0

    assert out.read_bytes() == unbroken.read_bytes()
    assert not journal_path(out).exists()
    rewrites = read_rewrites(out)
    assert [(r.qid, r.candidate) for r in rewrites] == [
        (f"q{i}", c) for i in range(13) for c in (0, 1)
    ]
    if engine == "transformers":
        assert len({r.response for r in rewrites}) > 10  # samples, not one answer again and again
