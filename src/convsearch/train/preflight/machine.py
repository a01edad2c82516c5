"""Whether this machine has what a training needs: GPUs, and room for its checkpoints."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import ConfigError, DependencyError, WriteError, install_command
from convsearch.train.checkpoint import weight_shapes
from convsearch.train.device import Device, DeviceChoice

BYTES_IN_CHECKPOINT = 16
"""For each parameter: weights, AdamW's two moments and the Hugging Face copy, all in float32."""
BYTES_IN_RESULT = 4
"""For each parameter of the finished model, which is float32."""
KEPT = 2
"""Newest checkpoints that stay while a training runs."""
USUAL_GPUS = 8
"""Processes of a training on GPUs where their number is not given."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Where a training runs."""

    device: Device
    processes: int
    """GPUs; on a CPU, processes."""
    reason: str | None
    """Why, where the command left it open."""


def num_gpus_here() -> int:
    """GPUs that PyTorch can use; 0 without any."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_device(asked: DeviceChoice, processes: int | None, flag: str) -> Chosen:
    """`auto` takes the GPUs where there are as many as asked for, else the CPU.

    processes: as given with `flag`; None takes the usual number of the device, and what is there
    with `auto`.
    """
    if asked != "auto":
        usual = 1 if asked == "cpu" else USUAL_GPUS
        return Chosen(device=asked, processes=_or(processes, usual), reason=None)
    there = num_gpus_here()
    wanted = _or(processes, min(max(there, 1), USUAL_GPUS))
    if there >= wanted:
        return Chosen(device="cuda", processes=wanted, reason=f"{there} GPUs here, {wanted} used")
    reason = f"{there} GPUs here, {flag} {wanted}" if there else "no GPU that PyTorch can use"
    return Chosen(device="cpu", processes=_or(processes, 1), reason=reason)


def _or(given: int | None, usual: int) -> int:
    return usual if given is None else given


def check_gpus(device: Device, processes: int, flag: str, device_flag: str = "--device") -> None:
    """Raises ConfigError where a training on GPUs has fewer of them than processes.

    flag, device_flag: what says so, as typed.
    """
    if device != "cuda":
        return
    there = num_gpus_here()
    if there < processes:
        found = f"{there} GPUs are" if there else "no GPU that PyTorch can use is"
        less = f"{flag} {there}, or " if there else ""
        raise ConfigError(
            f"{device_flag} cuda with {flag} {processes}: {found} here; take {less}{device_flag} "
            'cpu, or a machine with as many ("convsearch doctor" checks this one)'
        )


def check_sampler(device: Device) -> None:
    """Raises DependencyError where a training on GPUs has nothing to sample responses with."""
    from importlib.metadata import PackageNotFoundError, version

    if device != "cuda":
        return
    try:
        version("vllm")
    except PackageNotFoundError:
        raise DependencyError(
            "vLLM, which samples the responses on GPUs, is not installed; run "
            f"{install_command('vllm')}, or take --device cpu"
        ) from None


def check_disk(model: Path, out_dir: Path, *, checkpoints: int, written: Path) -> None:
    """Raises WriteError where the checkpoints will not fit on the disk of `out_dir`.

    model: what is trained. checkpoints: how many will be saved. written: folder of those that an
    interrupted run has left, whose room is counted as free.
    """
    parameters = sum(math.prod(shape) for shape in weight_shapes(model).values())
    kept = min(KEPT, checkpoints)
    needed = parameters * (BYTES_IN_CHECKPOINT * kept + BYTES_IN_RESULT)
    place = out_dir.absolute()
    while not place.exists():
        place = place.parent
    there = sum(f.stat().st_size for f in written.rglob("*") if f.is_file())
    free = shutil.disk_usage(place).free + there
    if needed > free:
        raise WriteError(
            f"{out_dir}: {kept} checkpoint{'s' if kept > 1 else ''} of {parameters / 1e6:,.1f} "
            f"million parameters and the result need {needed / 1e9:,.2f} GB, and "
            f"{free / 1e9:,.2f} GB are free there; make room, or name another --out"
        )
