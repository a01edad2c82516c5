"""What `convsearch infer` and the door have in common: a plan in, rewrites.jsonl and a line out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.cli import options as o
from convsearch.cli.infer_progress import infer_progress
from convsearch.infer import Plan, infer_to_file


@dataclass(frozen=True, kw_only=True)
class EngineFlags:
    """Which engine runs the model, and how many of it."""

    name: str
    """One of ENGINES."""
    model: str | None
    """Checkpoint folder, hub name, or the endpoint's name of the model."""
    url: str | None = None
    """Of the `openai` endpoint."""
    device: str = "auto"
    """Of the `transformers` engine."""
    dtype: str = "auto"
    """Of the weights."""
    workers: int = 1
    """Engines, a process each."""
    gpus_per_worker: int = 1
    """GPUs of one engine."""
    max_restarts: int = 32
    """Engines that may be opened again, all together."""
    block_deadline_s: float = 3600.0
    """Of one block, where there are several engines."""


def run_inference(
    plan: Plan,
    flags: EngineFlags,
    *,
    out: Path,
    batch_size: int | None,
    fresh: bool,
    retry_failed: bool,
    inputs: Sequence[Path],
) -> None:
    """Makes the rewrites and says how many there are of each status."""
    with (
        o.engine_of(
            flags.name,
            flags.model,
            url=flags.url,
            device=flags.device,
            dtype=flags.dtype,
            workers=flags.workers,
            gpus_per_worker=flags.gpus_per_worker,
            max_restarts=flags.max_restarts,
            block_deadline_s=flags.block_deadline_s,
        ) as engine,
        infer_progress("rewriting") as meter,
    ):
        counts = infer_to_file(
            plan,
            engine,
            out_path=out,
            batch_size=o.batch_size_of(flags.name, batch_size, flags.workers),
            fresh=fresh,
            retry_failed=retry_failed,
            inputs=inputs,
            on_progress=meter.advance,
            on_tokens=meter.add_tokens,
        )
    o.say(f"{out}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
