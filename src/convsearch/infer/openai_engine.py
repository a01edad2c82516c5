"""The engine behind any OpenAI-compatible `/v1/chat/completions` endpoint.

The key comes from the environment variable OPENAI_API_KEY and from nowhere else; endpoints that
need none are called without one. The seed is sent; whether it is honoured is the endpoint's affair.

All callers of an engine, from whatever thread, share one event loop in a thread of its own, and so
one cap on the requests under way and one pool of connections.
"""

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence

import httpx
import stamina

from convsearch.errors import ConfigError, EngineError
from convsearch.infer.engine import Generation, SamplingParams
from convsearch.retrieval.transport import reads_environment
from convsearch.types import ChatMessage

KEY_VARIABLE = "OPENAI_API_KEY"
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403, 404, 405})
"""Answers that every request would get: the key, the path or the model's name is wrong."""


class _TryAgain(Exception):
    """The endpoint answered that it cannot answer now."""


class OpenaiEngine:
    """Sends each chat as one request, several at a time. Safe for threads.

    url: with or without `/v1` and `/chat/completions`. concurrency: most requests under way, of all
    callers together. deadline_s: for one chat, retries included, from its turn on. tells_ids: asks
    for the ids of prompts and responses, as vLLM's server gives them; others refuse the question.
    attempts: tries for one chat, on connection errors and on 408, 409, 429 and 5xx answers.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        concurrency: int = 16,
        attempts: int = 4,
        deadline_s: float = 120.0,
        tells_ids: bool = False,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"engine URL {url!r} must begin with http:// or https://")
        base = url.rstrip("/").removesuffix("/chat/completions")
        self._url = f"{base if base.endswith('/v1') else f'{base}/v1'}/chat/completions"
        self._model = model
        self._concurrency = concurrency
        self._attempts = attempts
        self._deadline_s = deadline_s
        self._more = {"return_token_ids": True} if tells_ids else {}
        self._gate = asyncio.Semaphore(concurrency)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self.identity: Mapping[str, str | int | float | None] = {
            "engine": "openai",
            "model": model,
            "url": self._url,
        }

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. A request without an answer is a Generation with an error. Raises
        EngineError where the endpoint refuses key, path or model, or where not one request of the
        batch reached it."""
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
            if self._client is not None:
                asyncio.run_coroutine_threadsafe(self._client.aclose(), loop).result()
                self._client = None
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
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._deadline_s,
                trust_env=reads_environment(self._url),
                limits=httpx.Limits(max_connections=self._concurrency),
            )
        client = self._client
        reached = [False] * len(chats)

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
                        self._ask(client, body), timeout=self._deadline_s
                    )
                except asyncio.TimeoutError:
                    reached[i] = True
                    return Generation(error=f"no answer within {self._deadline_s:g} s")
                except httpx.TransportError as error:
                    reached[i] = not isinstance(error, httpx.NetworkError | httpx.ConnectTimeout)
                    return Generation(error=f"{type(error).__name__}: {error}")
                except _TryAgain as error:
                    reached[i] = True
                    return Generation(error=str(error))
                reached[i] = True
                return answer

        asked = [asyncio.ensure_future(one(i)) for i in range(len(chats))]
        try:
            answers = list(await asyncio.gather(*asked))
        finally:
            for request in asked:  # after a refusal nobody waits for the others
                request.cancel()
        if chats and not any(reached):
            raise EngineError(
                f"{self._url}: not one of {len(chats)} requests reached it ({answers[0].error}); "
                "start the endpoint or mend its address, then run again: finished work is kept"
            )
        return answers

    async def _ask(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> Generation:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        retried = (httpx.TransportError, _TryAgain)
        async for attempt in stamina.retry_context(
            on=retried, attempts=self._attempts, timeout=self._deadline_s, wait_initial=0.2
        ):
            with attempt:
                response = await client.post(self._url, json=body, headers=headers)
                if response.status_code in _RETRIED:
                    raise _TryAgain(f"HTTP {response.status_code}: {response.text[:200]}")
                return self._read(response)
        raise AssertionError("stamina ends with a result or an exception")

    def _read(self, response: httpx.Response) -> Generation:
        if response.status_code in _REFUSED:
            raise EngineError(
                f"{self._url}: HTTP {response.status_code} {response.text[:200]!r}; check the URL, "
                f"the model name {self._model!r}, and the key in {KEY_VARIABLE}"
            )
        if response.is_error:
            return Generation(error=f"HTTP {response.status_code}: {response.text[:200]}")
        try:
            answer = response.json()
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            is_cut = choice.get("finish_reason") == "length"
            usage = answer.get("usage") or {}
            num_tokens = usage.get("completion_tokens") or 0
            prompt_tokens = usage.get("prompt_tokens") or 0
        except (ValueError, LookupError, TypeError, AttributeError):
            return Generation(error=f"not a chat completion: {response.text[:200]}")
        if not isinstance(text, str):
            return Generation(error="the answer has no text content")
        return Generation(
            text=text,
            num_tokens=num_tokens,
            prompt_tokens=prompt_tokens,
            prompt_ids=_ids(answer.get("prompt_token_ids")),
            ids=_ids(choice.get("token_ids")),
            is_cut=is_cut,
        )


def _ids(value: object) -> tuple[int, ...] | None:
    """A list of ids; None for anything else."""
    if isinstance(value, list) and all(isinstance(i, int) for i in value):
        return tuple(value)
    return None
