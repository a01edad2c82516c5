"""One engine for many requests: those that wait while it works are answered together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from convsearch.errors import EngineError
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.types import ChatMessage


@dataclass(eq=False, kw_only=True)
class _Job:
    chat: list[ChatMessage]
    params: SamplingParams
    seed: int
    answer: "asyncio.Future[Generation]"


class GenerationQueue:
    """Use it from one event loop. The engine is called from one thread of its own.

    Nobody waits for company: a batch is what waits when the engine gets free, the longest waiting
    first, as far as the sampling is the same.
    """

    def __init__(self, engine: Engine, *, max_batch: int) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._waiting: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None
        self.is_generating = False
        """Whether a call into the engine runs."""
        self.failure: str | None = None
        """What the last call failed with; None after one that worked."""

    async def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. Raises what the engine raises for the batch. Cancelling the call takes what
        still waits out of the queue."""
        loop = asyncio.get_running_loop()
        jobs = [
            _Job(chat=chat, params=params, seed=seed, answer=loop.create_future())
            for chat, seed in zip(chats, seeds, strict=True)
        ]
        self._waiting += jobs
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return list(await asyncio.gather(*(job.answer for job in jobs)))

    def close(self) -> None:
        """Takes no more work; a call that runs goes on in its thread."""
        if self._worker is not None:
            self._worker.cancel()
        for job in self._waiting:
            job.answer.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while batch := self._next_batch():
            chats, seeds = [job.chat for job in batch], [job.seed for job in batch]
            self.is_generating = True
            call = asyncio.get_running_loop().run_in_executor(
                self._thread, self._engine.generate, chats, batch[0].params, seeds
            )
            call.add_done_callback(self._ended)
            await asyncio.wait([call])
            error = call.exception()
            if error is None and len(call.result()) != len(batch):
                error = EngineError(f"{len(call.result())} answers to {len(batch)} prompts")
            self.failure = None if error is None else str(error)
            for i, job in enumerate(batch):
                if job.answer.done():  # cancelled meanwhile
                    continue
                if error is None:
                    job.answer.set_result(call.result()[i])
                else:
                    job.answer.set_exception(error)

    def _ended(self, _: object) -> None:
        self.is_generating = False

    def _next_batch(self) -> list[_Job]:
        self._waiting = [job for job in self._waiting if not job.answer.done()]
        if not self._waiting:
            return []
        params = self._waiting[0].params
        batch = [job for job in self._waiting if job.params == params][: self._max_batch]
        taken = set(map(id, batch))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return batch
