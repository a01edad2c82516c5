"""One engine for many requests: those that wait while it works are answered together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from convsearch.errors import ConvsearchError, EngineError, PromptError
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.types import ChatMessage

_PROBE: list[ChatMessage] = [{"role": "user", "content": "Is anyone there?"}]
_PROBE_PARAMS = SamplingParams(temperature=0, max_tokens=1)


class OnePromptFailed(Exception):
    """The engine failed on one prompt, and answers others."""


@dataclass(eq=False, kw_only=True)
class _Job:
    chat: list[ChatMessage]
    params: SamplingParams
    seed: int
    answer: "asyncio.Future[Generation]"


class GenerationQueue:
    """Use it from one event loop. The engine is called from one thread of its own.

    A batch is what waits when the engine gets free, the longest waiting first, as far as the
    sampling is the same. Where a batch fails, a prompt of our own tells whether the engine still
    answers. If it does, the batch is halved, and so on down to the prompt at fault, which alone
    gets an error.
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
        """Why the engine does not answer; None where its last call showed that it does."""

    async def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. Raises PromptError or OnePromptFailed where one of these chats is at fault,
        EngineError where the engine answers nothing. Cancelling the call takes what still waits
        out of the queue."""
        loop = asyncio.get_running_loop()
        jobs = [
            _Job(chat=chat, params=params, seed=seed, answer=loop.create_future())
            for chat, seed in zip(chats, seeds, strict=True)
        ]
        self._waiting += jobs
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return list(await asyncio.gather(*(job.answer for job in jobs)))

    def look_again(self) -> None:
        """Asks an engine that did not answer whether it does now, where nobody else is asking: the
        result is in `failure` when it comes. A balancer that sends no requests while it hears of a
        failure would otherwise never hear that it is over."""
        if self.failure is not None and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._probe_then_work())

    def close(self) -> None:
        """Takes no more work; a call that runs goes on in its thread."""
        if self._worker is not None:
            self._worker.cancel()
        for job in self._waiting:
            job.answer.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    async def _probe_then_work(self) -> None:
        if await self._is_alive():
            self.failure = None
        await self._work()

    async def _is_alive(self) -> bool:
        """Whether the engine answers a prompt of our own, or at least says why it does not."""
        found = await self._call([_PROBE], _PROBE_PARAMS, [0])
        return isinstance(found, list | PromptError)

    async def _work(self) -> None:
        while batch := self._next_batch():
            await self._answer(batch)

    async def _answer(self, batch: list[_Job]) -> None:
        """Sets the answer or the error of every job."""
        found = await self._call(
            [job.chat for job in batch], batch[0].params, [job.seed for job in batch]
        )
        if isinstance(found, list):
            self.failure = None
            for job, generation in zip(batch, found, strict=True):
                if not job.answer.done():  # cancelled meanwhile
                    job.answer.set_result(generation)
            return
        if not isinstance(found, PromptError) and not await self._is_alive():
            self.failure = _said(found)
            for job in batch:
                _fail(job, EngineError(self.failure))
            return
        self.failure = None
        if len(batch) == 1:
            error = found if isinstance(found, PromptError) else OnePromptFailed(_said(found))
            _fail(batch[0], error)
            return
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            if left := [job for job in half if not job.answer.done()]:
                await self._answer(left)

    async def _call(
        self, chats: list[list[ChatMessage]], params: SamplingParams, seeds: list[int]
    ) -> list[Generation] | BaseException:
        """What the engine returns, or what it raises."""
        self.is_generating = True
        call = asyncio.get_running_loop().run_in_executor(
            self._thread, self._engine.generate, chats, params, seeds
        )
        call.add_done_callback(self._ended)
        await asyncio.wait([call])
        error = call.exception()
        if error is None and len(call.result()) != len(chats):
            error = EngineError(f"{len(call.result())} answers to {len(chats)} prompts")
        return call.result() if error is None else error

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


def _fail(job: _Job, error: Exception) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)


def _said(error: BaseException) -> str:
    """The sentence of an error of ours; of others also their kind."""
    is_ours = isinstance(error, ConvsearchError)
    return str(error) if is_ours else f"{type(error).__name__}: {error}"
