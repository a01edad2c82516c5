"""How many threads and processes are worth starting."""

import os


def num_cores() -> int:
    """Cores this process may run on; where the system does not say, all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
