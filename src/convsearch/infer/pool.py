"""Several engines, a process each, pulling blocks from one queue. There is no group among them: an
engine that ends, hangs or has nothing to do holds up no other."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from logging import getLogger
from multiprocessing.connection import wait

from convsearch.errors import ConfigError, EngineError
from convsearch.infer.engine import Block, Engine, Generation, SamplingParams
from convsearch.infer.gpus import gpu_groups
from convsearch.infer.worker import Worker, WorkerDied
from convsearch.types import ChatMessage

log = getLogger(__name__)

STRIKES = 2
"""Engines that a piece of work may end before it is cut in two, or a single prompt given up."""
_PATIENCE_S = 3600.0
"""Longest single wait for a message, where no deadline is nearer."""
FALSE_STARTS = 3
"""Times in a row that an engine may end before it is open; then the run stops."""


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How many engines there are, and how much trouble they may make. Raises ConfigError for
    impossible numbers."""

    workers: int
    """Engines, a process each."""
    gpus_per_worker: int = 1
    """GPUs of one engine, out of those visible here."""
    uses_gpus: bool = True
    """False: the engines see no GPU, and none is counted."""
    max_restarts: int = 32
    """Engines that may be opened again in one run, all together."""
    deadline_s: float = 3600.0
    """Of one block; an engine that takes longer is ended, and counts as one that ended."""
    start_deadline_s: float = 1800.0
    """Of opening an engine: loading weights, compiling."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.gpus_per_worker < 1:
            raise ConfigError(
                "workers and GPUs of a worker must be 1 or more, got "
                f"{self.workers} and {self.gpus_per_worker}"
            )
        if self.max_restarts < 0:
            raise ConfigError(f"max_restarts must be 0 or more, got {self.max_restarts}")
        if self.deadline_s <= 0 or self.start_deadline_s <= 0:
            raise ConfigError("deadlines must be above 0 seconds")


@dataclass(eq=False, kw_only=True)
class _Job:
    """A block, or what it was cut into."""

    answer: "_Answer"
    start: int
    """Place of its first prompt in the block."""
    block: Block
    strikes: int = 0
    reason: str = ""
    """How the last engine ended on it."""


@dataclass(eq=False, kw_only=True)
class _Answer:
    """The generations of one block as far as they are there."""

    number: int
    left: int
    generations: dict[int, Generation] = field(default_factory=dict)

    def add(self, start: int, generations: Sequence[Generation], count: int) -> None:
        self.generations.update(enumerate(generations, start))
        self.left -= count

    def in_order(self) -> list[Generation]:
        return [self.generations[i] for i in sorted(self.generations)]


class _Queue:
    """Work to hand out: fresh blocks first, then what engines ended on."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._fresh = enumerate(blocks)
        self._again: deque[_Job] = deque()
        self._is_used_up = False

    @property
    def is_empty(self) -> bool:
        """Whether `take` has nothing; not known before it once had no fresh block."""
        return self._is_used_up and not self._again

    def take(self) -> _Job | None:
        """The next piece of work."""
        found = next(self._fresh, None)
        if found is None:
            self._is_used_up = True
            return self._again.popleft() if self._again else None
        number, block = found
        answer = _Answer(number=number, left=len(block.chats))
        return _Job(answer=answer, start=0, block=block)

    def put_back(self, job: _Job) -> None:
        """To be done again."""
        self._again.append(job)


class EnginePool:
    """A `BlockEngine` whose blocks are answered by whichever engine is free.

    A block is answered by one engine as one batch, so its answers do not depend on how many engines
    there are. Where an engine ends or hangs, a new one takes its place and its block goes to the
    end of the queue. A block that ends `STRIKES` engines is cut in two, and so on down to the
    prompt that is at fault, which becomes a Generation with an error; but only if engines answer
    other work meanwhile, since a machine that can answer nothing is no property of a prompt.
    """

    def __init__(self, open_engine: Callable[[], Engine], settings: PoolSettings) -> None:
        """open_engine: picklable. Returns once the first engine is open; raises what opening it
        raises, and EngineError where it ends `FALSE_STARTS` times."""
        self._open_engine = open_engine
        self._settings = settings
        self._gpus: list[str | None] = [None] * settings.workers
        if settings.uses_gpus:
            self._gpus = [*gpu_groups(settings.workers, settings.gpus_per_worker)]
        self._threads = (
            max(1, (os.cpu_count() or 1) // settings.workers) if settings.workers > 1 else None
        )
        self.identity: Mapping[str, str | int | float | None] = {}
        self._jobs: dict[int, _Job | None] = dict.fromkeys(range(settings.workers))
        self._false_starts = 0
        self._restarts = 0
        self._has_answered = False
        self._is_closed = False
        self._workers: list[Worker] = []
        try:
            for slot in range(settings.workers):
                self._workers.append(self._start(slot))
            while not self.identity:
                for _ in self._events():
                    pass
        finally:
            if not self.identity:
                self.close()

    @property
    def pids(self) -> list[int]:
        """The processes of the engines at the moment."""
        return [worker.pid for worker in self._workers]

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. Cut into equal runs of neighbours, one for each engine."""
        count = len(self._workers)
        bounds = [len(chats) * i // count for i in range(count + 1)]
        runs = [slice(a, b) for a, b in pairwise(bounds) if a < b]
        blocks = [Block(chats=chats[run], seeds=seeds[run]) for run in runs]
        parts = dict(self.generate_blocks(blocks, params))
        return [generation for i in range(len(runs)) for generation in parts[i]]

    def generate_blocks(
        self, blocks: Iterable[Block], params: SamplingParams
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See BlockEngine. Raises EngineError where engines end too often or answer nothing."""
        queue = _Queue(blocks)
        given_up: list[_Job] = []
        self._restarts = 0
        self._has_answered = False
        for slot, worker in enumerate(self._workers):
            if worker.is_gone:  # in the middle of work that nobody wants any more
                self._workers[slot] = self._start(slot)
        try:
            while True:
                self._hand_out(queue, params)
                if queue.is_empty and not any(self._jobs.values()):
                    yield from self._give_up(given_up)
                    return
                for job, result in self._events():
                    if isinstance(result, WorkerDied):
                        self._strike(job, str(result), queue, given_up)
                        continue
                    self._has_answered = True
                    job.answer.add(job.start, result, len(job.block.chats))
                    if not job.answer.left:
                        yield job.answer.number, job.answer.in_order()
                    yield from self._give_up(given_up)
        finally:
            for slot, job in self._jobs.items():
                if job is not None:
                    self._workers[slot].kill()
                    self._jobs[slot] = None

    def close(self) -> None:
        """See Engine. No worker is alive when this returns."""
        self._is_closed = True
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _hand_out(self, queue: _Queue, params: SamplingParams) -> None:
        """A job for every idle engine, as far as there is work."""
        for slot, worker in enumerate(self._workers):
            if not worker.is_idle:
                continue
            job = queue.take()
            if job is None:
                return
            self._jobs[slot] = job
            try:
                worker.send(job.block, params)
            except WorkerDied as death:  # while idle, so the job is not to blame
                queue.put_back(job)
                self._jobs[slot] = None
                self._replace(slot, str(death))

    def _events(self) -> Iterator[tuple[_Job, list[Generation] | WorkerDied]]:
        """Waits until something happens; yields jobs that were answered or ended their engine."""
        now = time.monotonic()
        due = [self._due(slot) for slot in range(len(self._workers))]
        ready = wait([w.pipe for w in self._workers], max(0.0, min(due) - now))
        for slot, worker in enumerate(list(self._workers)):
            try:
                if worker.pipe in ready:
                    message = worker.receive()
                elif self._due(slot) <= time.monotonic():
                    seconds = time.monotonic() - worker.since
                    raise WorkerDied(f"ended after {seconds:.0f} s without an answer")
                else:
                    continue
            except WorkerDied as death:
                job = self._jobs[slot]
                self._jobs[slot] = None
                self._replace(slot, str(death))
                if job is not None:
                    yield job, death
                continue
            job = self._jobs[slot]
            self._jobs[slot] = None
            if isinstance(message, list):
                assert job is not None
                yield job, message
            else:
                self._opened(message)

    def _due(self, slot: int) -> float:
        """When an engine has to be done with what it does; an idle one has time."""
        worker = self._workers[slot]
        if worker.is_idle:
            return time.monotonic() + _PATIENCE_S
        limit = self._settings.deadline_s if self._jobs[slot] else self._settings.start_deadline_s
        return worker.since + limit

    def _opened(self, identity: Mapping[str, str | int | float | None]) -> None:
        self._false_starts = 0
        if self.identity and identity != self.identity:
            raise EngineError(
                f"the engines differ: {dict(self.identity)} and {dict(identity)}; leave the "
                "checkpoint alone while a run reads it"
            )
        self.identity = identity

    def _start(self, slot: int) -> Worker:
        if self._is_closed:  # from another thread, while work was under way
            raise EngineError("the engines were closed")
        return Worker(self._open_engine, gpus=self._gpus[slot], threads=self._threads)

    def _replace(self, slot: int, reason: str) -> None:
        """Opens a new engine in place of one that ended."""
        worker = self._workers[slot]
        was_open = worker.was_open
        worker.kill()
        self._restarts += 1
        self._false_starts += not was_open
        again = "run the same command again: finished work is kept"
        if self._false_starts >= FALSE_STARTS:
            raise EngineError(
                f"engines ended {FALSE_STARTS} times before they were open (the last: {reason}); "
                f"look above for their last words (out of memory, often), then {again}"
            )
        if self._restarts > self._settings.max_restarts:
            raise EngineError(
                f"engines ended {self._restarts} times (the last: {reason}); look above for their "
                f"last words, then {again}"
            )
        log.warning("engine %d: %s; a new one takes its place", slot, reason)
        self._workers[slot] = self._start(slot)

    def _strike(self, job: _Job, reason: str, queue: _Queue, given_up: list[_Job]) -> None:
        """Decides what becomes of work that ended an engine."""
        job.strikes += 1
        job.reason = reason
        count = len(job.block.chats)
        if job.strikes < STRIKES:
            queue.put_back(job)
        elif count == 1:
            given_up.append(job)
        else:
            for part in (slice(0, count // 2), slice(count // 2, count)):
                half = Block(chats=job.block.chats[part], seeds=job.block.seeds[part])
                start = job.start + part.start
                queue.put_back(
                    _Job(answer=job.answer, start=start, block=half, strikes=STRIKES - 1)
                )

    def _give_up(self, given_up: list[_Job]) -> Iterator[tuple[int, list[Generation]]]:
        """Fails the prompts that end engines, where engines answer other work."""
        if given_up and not self._has_answered:
            raise EngineError(
                "engines end on every prompt that they are given (the last: "
                f"{given_up[-1].reason}); look above for their last words, then run again"
            )
        for job in given_up:
            error = f"engines end on this prompt (the last: {job.reason})"
            job.answer.add(job.start, [Generation(error=error)], 1)
            if not job.answer.left:
                yield job.answer.number, job.answer.in_order()
        given_up.clear()
