"""Several copies of one engine, each in its own process with its own GPUs."""

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from convsearch.errors import ConfigError, ConvsearchError, EngineError
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.infer.registry import open_engine
from convsearch.types import ChatMessage

CLOSE_S = 10
"""Time that a worker gets to end by itself."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What each worker opens."""

    name: str
    """Engine."""
    model: str | None
    """Checkpoint folder or hub name."""
    device: str = "auto"
    """Of the `transformers` engine."""
    dtype: str = "auto"
    """Of the weights."""
    gpus: int = 1
    """GPUs of one worker; vLLM splits the model over them."""


class ParallelEngine:
    """Cuts every batch into equal runs of neighbours, one for each worker.

    Worker i sees GPUs i * gpus to (i + 1) * gpus - 1 of those visible here. The share of a worker
    is its batch, so results are repeatable for one number of workers.
    """

    def __init__(self, workers: int, settings: WorkerSettings) -> None:
        """Raises ConfigError for impossible numbers, and what opening the engine raises."""
        if workers < 1 or settings.gpus < 1:
            raise ConfigError(
                f"workers and GPUs of a worker must be 1 or more, got {workers} and {settings.gpus}"
            )
        context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[SpawnProcess, Connection]] = []
        self.identity: Mapping[str, str | int | float | None] = {}
        gpus = [_visible_gpus(i, settings.gpus) for i in range(workers)]
        try:
            for i in range(workers):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_serve, args=(theirs, settings, gpus[i]))
                worker.start()
                theirs.close()
                self._workers.append((worker, ours))
            identities = [self._receive(i) for i in range(workers)]
            self.identity = {**identities[0], "workers": workers}
        finally:
            if not self.identity:
                self.close()

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. Raises EngineError where a worker died."""
        count = len(self._workers)
        bounds = [len(chats) * i // count for i in range(count + 1)]
        for i, (_, pipe) in enumerate(self._workers):
            part = slice(bounds[i], bounds[i + 1])
            try:
                pipe.send((list(chats[part]), params, list(seeds[part])))
            except OSError:
                raise self._dead(i) from None
        return [generation for i in range(count) for generation in self._receive(i)]

    def close(self) -> None:
        """See Engine. No worker is alive when this returns."""
        for _, pipe in self._workers:
            pipe.close()
        for worker, _ in self._workers:
            worker.join(CLOSE_S)
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._workers = []

    def _receive(self, i: int):  # what the worker sent: its identity, or generations
        try:
            answer = self._workers[i][1].recv()
        except (EOFError, OSError):
            raise self._dead(i) from None
        if isinstance(answer, ConvsearchError):
            raise answer
        return answer

    def _dead(self, i: int) -> EngineError:
        self._workers[i][0].join(1)
        return EngineError(
            f"inference worker {i} ended with code {self._workers[i][0].exitcode}; look above for "
            "its last words (out of memory, often), then run again: finished work is kept"
        )


def _visible_gpus(worker: int, gpus: int) -> str:
    """CUDA_VISIBLE_DEVICES of one worker. Raises ConfigError where there are too few."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = range(worker * gpus, (worker + 1) * gpus)
    if not visible:
        return ",".join(map(str, wanted))
    names = visible.split(",")
    if wanted[-1] >= len(names):
        raise ConfigError(
            f"worker {worker} needs GPU number {wanted[-1] + 1} and CUDA_VISIBLE_DEVICES={visible} "
            f"names {len(names)}; ask for fewer workers, or name more GPUs"
        )
    return ",".join(names[i] for i in wanted)


def _serve(pipe: Connection, settings: WorkerSettings, gpus: str) -> None:
    """The life of a worker: open, answer until the pipe closes, close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the pipe
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    engine: Engine | None = None
    try:
        engine = open_engine(
            settings.name,
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            tensor_parallel_size=settings.gpus,
        )
        pipe.send(dict(engine.identity))
        while True:
            chats, params, seeds = pipe.recv()
            pipe.send(engine.generate(chats, params, seeds))
    except EOFError:  # the other end closed
        pass
    except ConvsearchError as error:
        pipe.send(error)
    finally:
        if engine is not None:
            engine.close()
