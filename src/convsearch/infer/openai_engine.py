"""The engine behind any OpenAI-compatible `/v1/chat/completions` endpoint.

The key comes from the environment variable OPENAI_API_KEY and from nowhere else; endpoints that
need none are called without one. The seed is sent; whether it is honoured is the endpoint's affair.

All callers of an engine, from whatever thread, share one event loop in a thread of its own, and so
one cap on the requests under way and one pool of connections.
"""

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence

import httpx
import stamina

from convsearch.errors import ConfigError, EngineError
from convsearch.infer.chat_address import chat_address
from convsearch.infer.chat_answers import excerpt, read_completion
from convsearch.infer.engine import Generation, SamplingParams
from convsearch.listening import is_header_word
from convsearch.network.clients import async_client
from convsearch.network.retries import Backoff, TransientError, Waits, retry_after_s
from convsearch.types import ChatMessage

KEY_VARIABLE = "OPENAI_API_KEY"
_RETRIED = frozenset({408, 409, 425, 429})
"""Beside all of 500 and above but `_NEVER`."""
_NEVER = frozenset({501, 505})
_REFUSED = frozenset({401, 403, 404, 405})
"""Answers that every request would get: the key, the path or the model's name is wrong."""
WAITS = Waits(initial_s=0.5, factor=2.0, longest_s=16.0)
_CONNECT_S = 10.0
_FIRST_TRIES = 4
"""Tries, in some 3 s, for an endpoint that nobody has reached yet: it is not there."""
_LOST = 32
"""Requests in a row without an answer after which an endpoint is given up."""


class OpenaiEngine:
    """Sends each chat as one request, several at a time. Safe for threads.

    url: with or without `/v1` and `/chat/completions`. concurrency: most requests under way, of all
    callers together. deadline_s: for one chat, retries included, from its turn on. tells_ids: asks
    for the ids of prompts and responses, as vLLM's server gives them; others refuse the question.
    attempts: most tries for one chat; None: as many as the deadline has room for.

    Tried again are lost connections and answers of 408, 409, 425, 429 and from 500 on, after the
    wait that `Retry-After` asks for, else after 0.5 s and then twice as long each time, up to 16.
    Where a chat was given up and nothing was answered for as long as the deadline, the next ones
    have one try each, until one is answered.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        concurrency: int = 16,
        attempts: int | None = None,
        deadline_s: float = 120.0,
        tells_ids: bool = False,
    ) -> None:
        self._url, self._shown = chat_address(url)
        self._model = model
        self._attempts = attempts
        self._deadline_s = deadline_s
        self._more = {"return_token_ids": True} if tells_ids else {}
        self._gate = asyncio.Semaphore(concurrency)
        self._client = async_client(
            self._url,
            timeout=httpx.Timeout(deadline_s, connect=min(_CONNECT_S, deadline_s)),
            limits=httpx.Limits(max_connections=concurrency),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self._was_reached = False
        self._answered_at: float | None = None
        """When the last answer came; before the first one, when the first request was sent."""
        self._unanswered = 0
        """Requests in a row that were given up."""
        self.identity: Mapping[str, str | int | float | None] = {
            "engine": "openai",
            "model": model,
            "url": self._shown,
        }

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. A request without an answer is a Generation with an error. Raises
        EngineError where the endpoint refuses key, path or model, where not one request of the
        batch reached it, or where it has answered none of the last 32 or more."""
        future = asyncio.run_coroutine_threadsafe(
            self._generate(chats, params, seeds), self._running_loop()
        )
        try:
            return future.result()
        finally:
            future.cancel()  # nobody waits for it after a KeyboardInterrupt

    def close(self) -> None:
        """See Engine."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._client.aclose(), loop).result()
            loop.call_soon_threadsafe(loop.stop)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            return self._loop

    async def _generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        headers = _headers()
        reached = [False] * len(chats)
        given_up = [False] * len(chats)

        async def one(i: int) -> Generation:
            body = {
                "model": self._model,
                "messages": chats[i],
                "temperature": params.temperature,
                "top_p": params.top_p,
                "max_tokens": params.max_tokens,
                "seed": seeds[i],
                **self._more,
            }
            async with self._gate:
                try:
                    answer = await asyncio.wait_for(
                        self._ask(body, headers), timeout=self._deadline_s
                    )
                    reached[i], self._unanswered = True, 0
                    self._answered_at = time.monotonic()
                    return answer
                except asyncio.TimeoutError:
                    reached[i] = True
                    why = f"no answer within {self._deadline_s:g} s"
                except httpx.TransportError as error:
                    lost = isinstance(error, httpx.NetworkError | httpx.ConnectTimeout)
                    reached[i] = not lost
                    why = f"{type(error).__name__}: {error}"
                except TransientError as error:
                    reached[i] = True
                    why = str(error)
                given_up[i] = True
                self._unanswered += 1
                return Generation(error=why)

        asked = [asyncio.ensure_future(one(i)) for i in range(len(chats))]
        try:
            answers = list(await asyncio.gather(*asked))
        finally:
            for request in asked:  # after a refusal nobody waits for the others
                request.cancel()
        if chats and not any(reached):
            raise EngineError(
                f"{self._shown}: not one of {len(chats)} requests reached it ({answers[0].error}); "
                "start the endpoint or mend its address, then run again: finished work is kept"
            )
        if chats and all(given_up) and self._unanswered >= _LOST:
            raise EngineError(
                f"{self._shown}: the last {self._unanswered} requests got no answer "
                f"({answers[0].error}); run again when it answers: finished work is kept"
            )
        return answers

    async def _ask(self, body: Mapping[str, object], headers: dict[str, str]) -> Generation:
        now = time.monotonic()
        self._answered_at = self._answered_at or now
        backoff = Backoff(now + self._deadline_s, WAITS)
        is_silent = not self._was_reached or now - self._answered_at > self._deadline_s
        attempts = 1 if self._unanswered and is_silent else self._attempts

        def patience(error: Exception) -> bool | float:
            if not self._was_reached and backoff.failures >= _FIRST_TRIES - 1:
                return False
            return backoff(error)

        async for attempt in stamina.retry_context(on=patience, attempts=attempts, timeout=None):
            with attempt:
                try:
                    response = await self._client.post(self._url, json=body, headers=headers)
                except httpx.DecodingError as error:
                    raise TransientError(f"an answer that cannot be unpacked ({error})") from None
                self._was_reached = True
                return self._read(response)
        raise AssertionError("stamina ends with a result or an exception")

    def _read(self, response: httpx.Response) -> Generation:
        """Raises TransientError where another try may do, EngineError where none will."""
        status = response.status_code
        said = f"HTTP {status}: {excerpt(response.content)}"
        if status in _RETRIED or (status >= 500 and status not in _NEVER):
            asked_s = retry_after_s(response.headers)
            if asked_s >= self._deadline_s:
                said = (
                    f"{said} (asks to wait {asked_s:,.0f} s, beyond the {self._deadline_s:g} s "
                    "that a request may take)"
                )
            raise TransientError(said, retry_after_s=asked_s)
        if status in _REFUSED:
            raise EngineError(
                f"{self._shown}: {said}; check the URL, the model name {self._model!r}, and the "
                f"key in {KEY_VARIABLE}"
            )
        if response.has_redirect_location:
            raise EngineError(
                f"{self._shown}: HTTP {status}, it is at {response.headers['location']!r} now; "
                "give that address, if you trust it with your key"
            )
        return read_completion(response.content) if response.is_success else Generation(error=said)


def _headers() -> dict[str, str]:
    """The key, where there is one. Raises ConfigError for one that no header can carry."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not is_header_word(key):
        raise ConfigError(
            f"the key in {KEY_VARIABLE} must be one line of letters, digits and signs without "
            "blanks"
        )
    return {"Authorization": f"Bearer {key}"} if key else {}
