"""verl's platform `cpu`: the real trainer (FSDP2, Ray) on processors alone.

Opt-in by `VERL_PLATFORM=cpu`, and without any effect otherwise, so that a node with GPUs is not
touched (there, Ray actors without a GPU also see none). verl 0.9 has the seam but no such platform;
what it assumes of a device and a processor does not offer is answered here.
"""

import os
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

_MARK = "_convsearch_cpu"


def selected() -> bool:
    """Whether the user asked for the CPU platform."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def _zero(*args: object, **kwargs: object) -> int:
    return 0


def _nothing(*args: object, **kwargs: object) -> None:
    return None


_EXTRA: dict[str, Callable[..., object]] = {
    "empty_cache": _nothing,
    "ipc_collect": _nothing,
    "reset_peak_memory_stats": _nothing,
    "reset_accumulated_memory_stats": _nothing,
    "set_per_process_memory_fraction": _nothing,
    "memory_allocated": _zero,
    "memory_reserved": _zero,
    "max_memory_allocated": _zero,
    "max_memory_reserved": _zero,
    "mem_get_info": lambda *_: (0, 0),
    "get_device_name": lambda *_: "CPU",
    "manual_seed": torch.manual_seed,
    "manual_seed_all": torch.manual_seed,
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "set_rng_state": lambda state, *_: torch.set_rng_state(state),
}


class _CpuModule(types.ModuleType):
    """`torch.cpu` with the memory and random-number functions verl expects of a device module."""

    def __getattr__(self, name: str) -> object:
        return _EXTRA[name] if name in _EXTRA else getattr(torch.cpu, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is torch.cpu  # verl asks `== torch.cpu` in places

    def __hash__(self) -> int:
        return hash(torch.cpu)


class _CpuId(str):
    """The current device: `cpu` for torch, and `0` inside f"{device_name}:{device_id}"."""

    __slots__ = ()

    def __new__(cls) -> "_CpuId":
        return super().__new__(cls, "cpu")

    def __format__(self, spec: str) -> str:
        return "0"


_MODULE = _CpuModule("convsearch_cpu_device")


class PlatformCpu(PlatformBase):
    """Processors as an accelerator. Ray counts them as logical GPUs (`ray.init(num_gpus=...)`)."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return selected()

    def current_device(self) -> int:
        return _CpuId()  # pyright: ignore[reportReturnType]

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"  # Ray sets it for the logical GPUs

    @contextmanager
    def nvtx_range(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, msg: str
    ) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights travel through shared memory

    def cudart(self) -> None:
        return None


def install() -> None:
    """Registers the platform; where it is selected, also adapts torch here. Idempotent."""
    if PlatformRegistry.get("cpu") is not PlatformCpu:
        PlatformRegistry.register(platform="cpu")(PlatformCpu)
    if not selected():
        return
    _mend_process_group()
    _mend_offload_policy()


def _mend_process_group() -> None:
    """verl asks for "cpu:gloo,<device>:<backend>"; torch refuses "cpu" twice."""
    import torch.distributed as dist

    original = dist.init_process_group
    if hasattr(original, _MARK):
        return

    def init_process_group(backend: str | None = None, *args: object, **kwargs: object) -> object:
        wanted = "cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend
        return original(wanted, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    setattr(init_process_group, _MARK, True)
    dist.init_process_group = init_process_group  # pyright: ignore[reportAttributeAccessIssue]


def _mend_offload_policy() -> None:
    """The reference worker asks for pinned memory, which needs a CUDA driver."""
    from torch.distributed.fsdp import CPUOffloadPolicy

    if hasattr(CPUOffloadPolicy, _MARK):
        return
    original = CPUOffloadPolicy.__init__

    def init(self: CPUOffloadPolicy, pin_memory: bool = False) -> None:
        original(self, pin_memory=False)

    CPUOffloadPolicy.__init__ = init
    setattr(CPUOffloadPolicy, _MARK, True)
