"""Runs a trainer as a child process that is watched, timed and always cleaned up.

A trainer starts many processes (Ray's among them), some of which leave its process group. All of
them inherit one environment variable with a value of this run alone; by it they are found and
stopped, whichever way the run ends.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from convsearch.errors import StageError
from convsearch.train.one_machine import private_environment, scratch_folder

MARKER = "CONVSEARCH_RUN_ID"
"""Environment variable that names the run a process belongs to."""
GRACE_S = 8.0
"""Time to end after a signal, before the next and stronger one."""
FAREWELL_S = 2.0
"""Time for the rest of a run to end by itself once the trainer has ended."""
POLL_S = 0.25
FULL_BYTES = 1 << 20
"""Less than this is left where a program could not write what it had to, in pieces of its own."""

_ERROR_LINE = re.compile(r"(?:convsearch\.errors\.)(\w+): (?P<sentence>.+)")
_ANY_ERROR = re.compile(r"(?:^|\s)(?P<sentence>[A-Za-z_.]*(?:Error|Exception|Interrupt): .+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run_logged(
    command: Sequence[str],
    *,
    stage: str,
    env: Mapping[str, str],
    log_path: Path,
    time_limit_s: float,
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Runs `command` to its end, both output streams in `log_path`.

    env: added to this process's environment. on_tick: called a few times a second meanwhile.
    However this ends (also by Ctrl-C or an error in on_tick), no process of the run is left.
    Raises StageError, naming the log and its full disk or the first known error in it, if the
    command fails or is not done within time_limit_s.
    """
    run_id = uuid.uuid4().hex
    log_path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + time_limit_s
    with scratch_folder() as scratch, log_path.open("wb") as log:
        private = private_environment(scratch, os.environ)
        full_env = {**os.environ, **private, **env, MARKER: run_id}
        full_env.pop("RAY_ADDRESS", None)
        child = subprocess.Popen(
            command,
            env=full_env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        try:
            while child.poll() is None:
                if time.monotonic() > deadline:
                    raise StageError(
                        f"{stage}: not done after {time_limit_s:.0f} s and stopped; allow more "
                        f"time or fewer steps (log: {log_path})"
                    )
                on_tick()
                time.sleep(POLL_S)
            on_tick()
        finally:
            stop_run(run_id, child)
    if child.returncode != 0:
        cause = no_room(log_path.parent) or first_error(log_path)
        raise StageError(
            f"{stage}: ended with exit code {child.returncode}"
            f"{f': {cause}' if cause else ''} (log: {log_path})"
        )


def no_room(folder: Path) -> str | None:
    """The sentence for a disk that is full; a log on it does not say so any more."""
    free = shutil.disk_usage(folder).free
    if free >= FULL_BYTES:
        return None
    return (
        f"{folder}: its disk is full ({free:,} bytes are free); make room and give the same "
        "command again, which goes on from the last checkpoint"
    )


def run_processes(run_id: str) -> list[psutil.Process]:
    """All living processes of a run, wherever they are in the process tree."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop_run(run_id: str, child: "subprocess.Popen[bytes]") -> None:
    """Ends what is left of a run: asks, waits, terminates, waits, kills."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    psutil.wait_procs(run_processes(run_id), timeout=FAREWELL_S)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        left = run_processes(run_id)
        for process in left:
            with contextlib.suppress(psutil.Error):
                end(process)
        psutil.wait_procs(left, timeout=GRACE_S)
    child.wait(GRACE_S)


def first_error(log_path: Path) -> str | None:
    """The sentence that best explains a failed run: this project's first error in its log, else the
    last error of any kind."""
    fallback = None
    with log_path.open(encoding="utf-8", errors="replace") as lines:
        for raw in lines:
            line = _ANSI.sub("", raw).strip()
            known = _ERROR_LINE.search(line)
            if known:
                return known["sentence"]
            other = _ANY_ERROR.search(line)
            fallback = other["sentence"] if other else fallback
    return fallback


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
