"""One engine in a process of its own, with its own GPUs, and the parent's end of it."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from convsearch.errors import ConvsearchError
from convsearch.infer.engine import Block, Engine, Generation, SamplingParams

CLOSE_S = 10
"""Time that an idle worker gets to end by itself."""
Identity = Mapping[str, str | int | float | None]
Message = Identity | list[Generation] | ConvsearchError
"""What a worker sends: first its identity, then the answers to each block, at last an error."""


class WorkerDied(Exception):
    """A worker ended without an answer; the message says how."""


class Worker:
    """A process that opens an engine and answers blocks, one at a time.

    open_engine: picklable; called in the process. gpus: its CUDA_VISIBLE_DEVICES, None leaves
    them as they are here. threads: of one CPU computation, where the environment names none.
    """

    def __init__(
        self, open_engine: Callable[[], Engine], *, gpus: str | None, threads: int | None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, open_engine, gpus, threads))
        self._process.start()
        theirs.close()
        self.is_idle = False
        """Whether it waits for a block; it opens its engine first."""
        self.was_open = False
        """Whether it got as far as to open its engine."""
        self.since = time.monotonic()
        """When it began what it does."""
        self.is_gone = False
        """Whether `kill` or `close` ended it."""

    @property
    def pid(self) -> int:
        """Of the process, and of the group that it leads."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, block: Block, params: SamplingParams) -> None:
        """Gives an idle worker a block. Raises WorkerDied."""
        self.is_idle = False
        self.since = time.monotonic()
        try:
            self.pipe.send((block, params))
        except OSError:
            raise WorkerDied(self._ending()) from None

    def receive(self) -> Identity | list[Generation]:
        """What `wait` on the pipe announced. Raises WorkerDied, and the error that it sent."""
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerDied(self._ending()) from None
        if isinstance(message, ConvsearchError):
            raise message
        self.is_idle = self.was_open = True
        return message

    def kill(self) -> None:
        """Ends the process and all that it started, at once."""
        self.is_idle = False
        self.close()

    def close(self) -> None:
        """Lets an idle worker end by itself; kills one that works. It has ended on return."""
        if self.is_gone:
            return
        self.pipe.close()
        if self.is_idle:
            wait([self._process.sentinel], CLOSE_S)
        self._kill_group()
        self._process.join()
        self.is_idle = False
        self.is_gone = True

    def _kill_group(self) -> None:
        """Before `join`: until then the number of the group is not given to others."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()

    def _ending(self) -> str:
        self._process.join(1)
        code = self._process.exitcode
        if code is None:
            return "it closed its pipe"
        return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _serve(
    pipe: Connection, open_engine: Callable[[], Engine], gpus: str | None, threads: int | None
) -> None:
    """The life of a worker: open, answer until the pipe closes, close."""
    os.setpgid(
        0, 0
    )  # Ctrl-C reaches the parent alone; what an engine starts can be found and ended
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    engine: Engine | None = None
    try:
        engine = open_engine()
        pipe.send(dict(engine.identity))
        while True:
            block, params = pipe.recv()
            pipe.send(engine.generate(block.chats, params, block.seeds))
    except (EOFError, BrokenPipeError):  # the other end closed
        pass
    except ConvsearchError as error:
        pipe.send(error)
    finally:
        if engine is not None:
            engine.close()


def _end_with_parent() -> None:
    """Ends this process and its group once the parent is gone, however that happened."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
