"""Runs stages in order, each once: a result is reused while nothing it depends on has changed."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convsearch import __version__
from convsearch.errors import ConfigError, StageError
from convsearch.files import atomic_write
from convsearch.made import fingerprint
from convsearch.passport import sha256_of, write_passport
from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.processes import MemorySampler, no_process_left

Progress = Callable[[int, int, str], None]
"""(done, total, what): how far a stage is."""
Counts = Mapping[str, int]


class Observer(Protocol):
    """Hears what the run does; the command line draws it."""

    def started(self, stage: str, number: int, total: int) -> None:
        """A stage begins; `number` counts from 1."""
        ...

    def advanced(self, stage: str, done: int, total: int, what: str) -> None:
        """A stage got on."""
        ...

    def ended(self, stage: str, seconds: float, counts: Counts, *, reused: bool) -> None:
        """A stage is finished, or its earlier result was taken over."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run. Its result is a function of its settings, its inputs and what it needs."""

    name: str
    run: Callable[[Progress], Counts]
    settings: Mapping[str, object]
    """All that shapes the result, JSON-ready."""
    needs: tuple[str, ...] = ()
    """Stages before it whose change makes it run again."""
    inputs: tuple[Path, ...] = ()
    """Files and folders from outside the run."""
    folders: tuple[Path, ...] = ()
    """What it writes: removed before it starts afresh, kept where it goes on after an interrupt."""
    outputs: tuple[Path, ...] = ()
    """Files that exist once it is done; one missing and it runs again."""
    is_service: bool = False
    """Lives for the rest of the run and leaves nothing: started where a later stage runs."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What is known of one finished stage."""

    seconds: float
    """Wall time, over all attempts."""
    peak_rss_mb: float
    counts: dict[str, int]


def run_stages(
    stages: Sequence[Stage],
    layout: RunLayout,
    observer: Observer,
    *,
    services: ExitStack,
    fresh: bool,
    seed: int,
) -> dict[str, Finished]:
    """Runs what is not finished yet and returns what is known of every stage.

    services: where service stages leave what must be closed; it is closed when this ends.
    A stage that is interrupted, by an error or by Ctrl-C, is taken up again by the next call. No
    process that a stage started is alive when this returns or raises.
    Raises ConfigError for a folder that is no run or is in use, StageError for an output that a
    stage did not write, and whatever the stages raise.
    """
    _claim(layout)
    with _locked(layout), no_process_left(), MemorySampler() as memory, services:
        if fresh:
            _clear(stages, layout)
        prints = _fingerprints(stages)
        pending = _pending(stages, layout, prints)
        finished = {}
        for number, stage in enumerate(stages, 1):
            if stage.name in pending:
                observer.started(stage.name, number, len(stages))
                _run(stage, layout, prints[stage.name], memory, observer, seed)
            finished[stage.name] = read_finished(layout, stage.name)
            done = finished[stage.name]
            reused = stage.name not in pending
            observer.ended(stage.name, done.seconds, done.counts, reused=reused)
    return finished


def _run(
    stage: Stage,
    layout: RunLayout,
    fingerprint: str,
    memory: MemorySampler,
    observer: Observer,
    seed: int,
) -> None:
    before_s, before_mb = _begin(stage, layout, fingerprint)
    start = time.monotonic()
    memory.take_peak_mb()

    def spent() -> dict[str, object]:
        return {
            "fingerprint": fingerprint,
            "seconds": round(before_s + time.monotonic() - start, 2),
            "peak_rss_mb": max(before_mb, memory.take_peak_mb()),
        }

    counts = None
    try:
        counts = stage.run(
            lambda done, total, what: observer.advanced(stage.name, done, total, what)
        )
    finally:
        if counts is None:
            _write_json(_attempt(layout, stage.name), spent())
    missing = [path for path in stage.outputs if not path.exists()]
    if missing:
        raise StageError(
            f"stage {stage.name} ended without {missing[0]}; look at its log in {layout.logs}"
        )
    usage = spent()
    seconds = usage.pop("seconds")
    write_passport(
        layout.passport(stage.name),
        stage=stage.name,
        settings={**stage.settings, **usage},
        inputs=stage.inputs,
        counts=counts,
        seed=seed,
        seconds=_as_float(seconds),
    )
    _attempt(layout, stage.name).unlink(missing_ok=True)


def _begin(stage: Stage, layout: RunLayout, fingerprint: str) -> tuple[float, float]:
    """Seconds and memory of the attempt that this one goes on from; (0, 0) for a fresh start."""
    attempt = _read_json(_attempt(layout, stage.name))
    layout.passport(stage.name).unlink(missing_ok=True)
    if attempt.get("fingerprint") == fingerprint:
        return _as_float(attempt.get("seconds")), _as_float(attempt.get("peak_rss_mb"))
    for folder in stage.folders:
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
    _write_json(_attempt(layout, stage.name), {"fingerprint": fingerprint})
    return 0.0, 0.0


def _fingerprints(stages: Sequence[Stage]) -> dict[str, str]:
    """Hash of each stage's settings, inputs and, through what it needs, of all that led to it."""
    prints: dict[str, str] = {}
    hashes: dict[Path, str] = {}
    for stage in stages:
        for path in stage.inputs:
            hashes.setdefault(path, sha256_of(path))
        prints[stage.name] = fingerprint(
            {
                "version": __version__,
                "stage": stage.name,
                "settings": stage.settings,
                "inputs": [hashes[path] for path in stage.inputs],
                "needs": [prints[name] for name in stage.needs],
            }
        )
    return prints


def _pending(stages: Sequence[Stage], layout: RunLayout, prints: Mapping[str, str]) -> set[str]:
    pending: set[str] = set()
    for stage in stages:
        settings = _read_json(layout.passport(stage.name)).get("settings")
        known = settings.get("fingerprint") if isinstance(settings, dict) else None
        complete = all(path.exists() for path in stage.outputs)
        stale = known != prints[stage.name] or not complete
        if not stage.is_service and (stale or pending.intersection(stage.needs)):
            pending.add(stage.name)
    for stage in stages:
        if stage.is_service and any(stage.name in s.needs for s in stages if s.name in pending):
            pending.add(stage.name)
    return pending


def read_finished(layout: RunLayout, name: str) -> Finished:
    """What the passport of a stage tells; zeros where there is none."""
    passport = _read_json(layout.passport(name))
    settings, counts = passport.get("settings"), passport.get("counts")
    return Finished(
        seconds=_as_float(passport.get("seconds")),
        peak_rss_mb=_as_float(settings.get("peak_rss_mb") if isinstance(settings, dict) else 0),
        counts=counts if isinstance(counts, dict) else {},
    )


# --- the run folder ------------------------------------------------------------------------------


def _claim(layout: RunLayout) -> None:
    """Refuses a folder that holds something else: stages remove what they are about to write."""
    root = layout.root
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root}: is a file; name a folder for the run")
    if root.exists() and not layout.stages.is_dir() and any(root.iterdir()):
        raise ConfigError(f"{root}: holds files that are no run of convsearch; name another folder")
    layout.stages.mkdir(parents=True, exist_ok=True)


def _clear(stages: Sequence[Stage], layout: RunLayout) -> None:
    for stage in stages:
        layout.passport(stage.name).unlink(missing_ok=True)
        _attempt(layout, stage.name).unlink(missing_ok=True)


@contextmanager
def _locked(layout: RunLayout) -> Iterator[None]:
    with (layout.stages / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{layout.root}: another process is running it; wait for it or name another folder"
            ) from None
        yield


def _attempt(layout: RunLayout, name: str) -> Path:
    return layout.stage(name) / "attempt.json"


def _read_json(path: Path) -> dict[str, object]:
    """The object in the file; empty where there is none, or none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_json(path: Path, record: Mapping[str, object]) -> None:
    with atomic_write(path) as out:
        json.dump(record, out, indent=2)


def _as_float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
