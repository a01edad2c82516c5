"""No process outlives a run, also not one whose parent is gone; memory is that of the tree."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from convsearch.pipeline.processes import MemorySampler, no_process_left

SLEEP = "import time; time.sleep(60)"


def test_child_is_ended_when_the_block_raises() -> None:
    started = []

    def interrupted() -> None:
        with no_process_left():
            started.append(subprocess.Popen([sys.executable, "-c", SLEEP]).pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not psutil.pid_exists(started[0])


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_orphaned_grandchild_in_its_own_session_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    parent = (
        "import subprocess, sys, pathlib\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
    )
    with no_process_left():
        subprocess.run([sys.executable, "-c", parent], check=True)
        pid = int(note.read_text())
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_process_from_before_the_block_is_left_alone() -> None:
    earlier = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        with no_process_left():
            pass
        assert earlier.poll() is None
    finally:
        earlier.kill()
        earlier.wait()


def test_process_that_ignores_the_polite_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convsearch.pipeline.processes.END_TIMEOUT_S", 0.5)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('on', flush=True); time.sleep(60)"
    )
    with no_process_left():
        child = subprocess.Popen(
            [sys.executable, "-c", stubborn], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "on\n"
    assert not psutil.pid_exists(child.pid)


def test_memory_counts_children() -> None:
    hungry = (
        "data = bytearray(200 * 2**20); data[::4096] = b'x' * len(data[::4096]); "
        "print('on', flush=True); input()"
    )
    with MemorySampler() as sampler:
        alone = sampler.take_peak_mb()
        child = subprocess.Popen(
            [sys.executable, "-c", hungry], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        with_child = sampler.take_peak_mb()
        child.communicate("\n")
    assert with_child - alone > 180
