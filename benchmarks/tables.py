"""What the benchmarks share: interleaved timing, the machine, and the files of results."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convsearch.passport import git_revision

RESULTS = Path(__file__).parent / "results"

Row = dict[str, object]


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, pause: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each run, by name: all once, then all again, so that a slow minute of the machine
    meets every one. One unmeasured call of each comes first.

    pause: seconds before each run, in which threads of the run before it stop spinning: those of
    matrix libraries do so for some 25 ms.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(pause)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median over the rounds of how many times as long `other` took as `one`."""
    return statistics.median(b / a for a, b in zip(one, other, strict=True))


def processor() -> str:
    """Processor and number of cores, for a row."""
    about = machine()
    return f"{about['processor']}, {about['cores']} cores"


def machine() -> dict[str, object]:
    """Processor, number of cores, memory, load, and the commit that was measured."""
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in lines.splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load": round(os.getloadavg()[0], 1),
        "commit": git_revision(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write_results(name: str, command: str, tables: Mapping[str, Sequence[Row]]) -> None:
    """`results/<name>.json` with all rows, and the same as Markdown tables in `<name>.md`."""
    RESULTS.mkdir(exist_ok=True)
    facts = {"command": command, "machine": machine()}
    content = json.dumps({**facts, **tables}, indent=1) + "\n"
    (RESULTS / f"{name}.json").write_text(content, encoding="utf-8")
    parts = [f"# {name}\n\n`{command}`\n\n{json.dumps(facts['machine'])}\n"]
    parts += [f"## {title}\n\n{markdown(rows)}\n" for title, rows in tables.items()]
    (RESULTS / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """Rows with the same keys as a table."""
    if not rows:
        return "(no rows)"
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
