"""Two guards around a run: no process outlives it, and the memory of all of them is measured."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_PR_SET_CHILD_SUBREAPER = 36
"""Linux prctl(2): orphaned descendants become our children instead of init's, so we find them."""
SAMPLE_S = 1.0
END_TIMEOUT_S = 5.0


@contextmanager
def no_process_left() -> Iterator[None]:
    """Ends every process that was started inside the block and still lives when it is left.

    The rooms stop what they start; this catches what was orphaned on the way (a second Ctrl-C, a
    daemon of Ray). Processes that were children before the block are not touched.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = set(_descendants())
    try:
        yield
    finally:
        with _uninterrupted():
            _end([process for process in _descendants() if process not in before])


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        _send(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=END_TIMEOUT_S)
    for process in alive:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=END_TIMEOUT_S)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done; outside the main thread signals never arrive anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class MemorySampler:
    """Peak resident memory of this process and all its descendants, sampled once a second.

    Pages that processes share are counted once for each, so the figure is an upper bound.
    """

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="memory-sampler")

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def take_peak_mb(self) -> float:
        """The peak since the last call (or the start), in MiB; starts the next period."""
        now = _tree_bytes()
        with self._lock:
            peak, self._peak_bytes = max(self._peak_bytes, now), 0
        return round(peak / 2**20, 1)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            now = _tree_bytes()
            with self._lock:
                self._peak_bytes = max(self._peak_bytes, now)


def _tree_bytes() -> int:
    total = 0
    for process in [psutil.Process(), *_descendants()]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
