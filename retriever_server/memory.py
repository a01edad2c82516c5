"""Whether an index fits into memory, asked before anything is allocated."""

from pathlib import Path

import psutil

from convsearch.errors import ConfigError

_CGROUP_2 = Path("/sys/fs/cgroup")
_CGROUP_1 = Path("/sys/fs/cgroup/memory")
_ON_DISK = frozenset({"passages.jsonl"})
"""Read passage by passage, never held."""
_GB = 1e9


def free_bytes() -> int:
    """Memory that a new process can use: of the machine, or of the container where that is less.
    Pages of files that the container has read count as free."""
    free = psutil.virtual_memory().available
    for folder, limit, used, cached in (
        (_CGROUP_2, "memory.max", "memory.current", ("active_file", "inactive_file")),
        (
            _CGROUP_1,
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
        ),
    ):
        try:
            lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
            stat = dict(line.split() for line in lines)
            room = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        free = min(free, room + sum(int(stat.get(name, 0)) for name in cached))
    return max(0, free)


def index_bytes(index_dir: Path) -> int:
    """Size of the files that searching an index needs in memory, mapped or read."""
    files = (path for path in index_dir.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.name not in _ON_DISK)


def check_memory(
    what: str,
    needed_bytes: int,
    remedy: str = "free some memory or serve it on a larger machine",
) -> None:
    """Raises ConfigError with the figures where `what` needs more memory than there is."""
    available = free_bytes()
    if needed_bytes > available:
        raise ConfigError(f"{what} needs {_gb(needed_bytes)}, {_gb(available)} free; {remedy}")


def _gb(num_bytes: int) -> str:
    size = num_bytes / _GB
    return f"{size:.0f} GB" if size >= 10 else f"{size:.2g} GB"
