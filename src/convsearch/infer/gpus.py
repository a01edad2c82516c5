"""Which GPUs each of several engines sees."""

import os
from pathlib import Path

from convsearch.errors import ConfigError

_DRIVER = Path("/proc/driver/nvidia/gpus")
"""One folder for each GPU, where NVIDIA's driver runs."""


def gpu_groups(workers: int, gpus_per_worker: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each worker: its share of the GPUs that are visible here.

    A variable that is set and empty hides all GPUs, and goes on to do so. Where it is not set, all
    GPUs of the machine are visible. Raises ConfigError where there are too few.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return [""] * workers
    wanted = workers * gpus_per_worker
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        source = f"CUDA_VISIBLE_DEVICES={visible} names {len(names)}"
    else:
        count = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else wanted
        names = [str(i) for i in range(count)]
        source = f"this machine has {count}"
    if wanted > len(names):
        raise ConfigError(
            f"{workers} workers with {gpus_per_worker} GPUs each need {wanted} and {source}; ask "
            "for fewer workers, or name more GPUs"
        )
    return [
        ",".join(names[i * gpus_per_worker : (i + 1) * gpus_per_worker]) for i in range(workers)
    ]
