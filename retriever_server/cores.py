"""How many threads and processes are worth starting, and which of them come first."""

import os
import sys
import threading

SEARCHING_NICENESS = 10
"""A tenth of the processor where somebody else wants it, all of it where nobody does."""


def num_cores() -> int:
    """Cores this process may run on; where the system does not say, all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def give_way() -> None:
    """Lets other threads go first from now on: of this thread, and of those that it starts, which
    inherit it. Linux alone knows a priority of threads; elsewhere this does nothing."""
    if sys.platform == "linux":
        this = threading.get_native_id()
        niceness = max(SEARCHING_NICENESS, os.getpriority(os.PRIO_PROCESS, this))
        os.setpriority(os.PRIO_PROCESS, this, niceness)
