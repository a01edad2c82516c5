"""What a device needs of verl: environment and overrides that SFT and GRPO share."""

import os
from typing import Literal

from convsearch.errors import ConfigError, DependencyError, install_command
from convsearch.train.overrides import override

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
"""As people ask for it; `auto` is decided before anything starts."""
Dtype = Literal["float32", "bfloat16"]


def require_verl() -> None:
    """Raises DependencyError where verl is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("verl")
    except PackageNotFoundError:
        raise DependencyError(f"verl is not installed; run {install_command('train')}") from None


def check_positive(name: str, value: float, *, zero_allowed: bool = False) -> None:
    """Raises ConfigError for a number that must be above (or, if allowed, at least) 0; NaN is
    neither."""
    if not (value > 0 or (value == 0 and zero_allowed)):
        raise ConfigError(
            f"{name} must be {'0 or more' if zero_allowed else 'above 0'}, got {value}"
        )


def flag_of(stage: str, field: str) -> str:
    """A setting as it can be typed: as a flag of the command, and as a key of `--set`."""
    return f"--{field.replace('_', '-')} / {stage}.{field}"


def device_environment(device: Device, threads: int) -> dict[str, str]:
    """Variables for the trainer and all its workers.

    threads: arithmetic threads of each process, 0 for all cores. The processes of a run alternate,
    so more threads than cores is no danger as long as idle threads sleep (OMP_WAIT_POLICY).
    """
    env = {
        "HYDRA_FULL_ERROR": "1",
        "PYTHONUNBUFFERED": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TQ_LOGGING_LEVEL": "ERROR",
    }
    if device == "cpu":
        env |= {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1),
            "OMP_WAIT_POLICY": "PASSIVE",
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_prestart_worker_first_driver": "0",
            "TORCHDYNAMO_DISABLE": "1",
            "VERL_PLATFORM": "cpu",
        }
    return env


def precision_overrides(prefix: str, dtype: Dtype) -> list[str]:
    """Overrides of one FSDP engine: arithmetic in `dtype`, gradients reduced in float32."""
    return [
        override(f"{prefix}.dtype", dtype),
        override(f"+{prefix}.mixed_precision.param_dtype", dtype),
        override(f"+{prefix}.mixed_precision.reduce_dtype", "float32"),
    ]
