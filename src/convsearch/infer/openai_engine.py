"""The engine behind any OpenAI-compatible `/v1/chat/completions` endpoint.

The key comes from the environment variable OPENAI_API_KEY and from nowhere else; endpoints that
need none are called without one. The seed is sent; whether it is honoured is the endpoint's affair.

All callers of an engine, from whatever thread, share one event loop in a thread of its own, and so
one cap on the requests under way and one pool of connections.
"""

import asyncio
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

import httpx
import stamina

from convsearch.errors import ConfigError, EngineError
from convsearch.infer.engine import Generation, SamplingParams
from convsearch.retrieval.transport import (
    Backoff,
    TransientError,
    reads_environment,
    retry_after_s,
)
from convsearch.types import ChatMessage

KEY_VARIABLE = "OPENAI_API_KEY"
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403, 404, 405})
"""Answers that every request would get: the key, the path or the model's name is wrong."""


_PATH = "/chat/completions"
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?", re.IGNORECASE)
"""A part of a path behind which no `/v1` belongs: `v1`, `v4`, `v1beta`."""
_USER = re.compile(r"://[^/?#]*@")


def completions_url(url: str) -> str:
    """Where chats are sent: an address that ends in `/chat/completions` as it is, its query kept;
    below the version that any other names, else below `/v1`. Raises ConfigError for what is no
    address."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        path = parts.path.rstrip("/")
        if not path.endswith(_PATH):
            has_version = any(map(_VERSION.fullmatch, path.split("/")))
            path = f"{path if has_version else f'{path}/v1'}{_PATH}"
        whole = urlunsplit(parts._replace(path=path))
        httpx.URL(whole)
    except (ValueError, httpx.InvalidURL):
        is_whole, whole = False, ""
    if not is_whole:
        raise ConfigError(
            f"engine URL {without_password(url)!r} is no address: it must begin with http:// or "
            "https:// and name a host, as http://127.0.0.1:8001/v1"
        )
    return whole


def without_password(url: str) -> str:
    """An address as it may be shown and stored: without the name and password in it."""
    return _USER.sub("://", url)


class _Patience:
    """How long to wait after each failure of one chat: a hook for stamina."""

    def __init__(self, deadline: float, connections: int) -> None:
        """deadline: on the clock of `time.monotonic`. connections: tries without one."""
        self._backoff = Backoff(deadline)
        self._left = connections - 1

    def __call__(self, error: Exception) -> bool | float:
        if isinstance(error, httpx.TransportError):
            if self._left < 1:
                return False
            self._left -= 1
        return self._backoff(error)


class OpenaiEngine:
    """Sends each chat as one request, several at a time. Safe for threads.

    url: see `completions_url`. concurrency: most requests under way, of all
    callers together. deadline_s: for one chat, retries included, from its turn on. tells_ids: asks
    for the ids of prompts and responses, as vLLM's server gives them; others refuse the question.
    attempts: tries for one chat where no connection comes about. Answers of 408, 409, 429 and 5xx
    are asked again until the deadline, after what Retry-After says.
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
        self._url = completions_url(url)
        self._shown = without_password(self._url)
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
            "url": self._shown,
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
                except TransientError as error:
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
                f"{self._shown}: not one of {len(chats)} requests reached it ({answers[0].error}); "
                "start the endpoint or mend its address, then run again: finished work is kept"
            )
        return answers

    async def _ask(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> Generation:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        patience = _Patience(time.monotonic() + self._deadline_s, self._attempts)
        async for attempt in stamina.retry_context(on=patience, attempts=None, timeout=None):
            with attempt:
                response = await client.post(self._url, json=body, headers=headers)
                if response.status_code in _RETRIED:
                    raise TransientError(
                        f"HTTP {response.status_code}: {response.text[:200]}",
                        retry_after_s=retry_after_s(response),
                    )
                return self._read(response)
        raise AssertionError("stamina ends with a result or an exception")

    def _read(self, response: httpx.Response) -> Generation:
        if response.status_code in _REFUSED:
            raise EngineError(
                f"{self._shown}: HTTP {response.status_code} {response.text[:200]!r}; check the "
                f"URL, the model name {self._model!r}, and the key in {KEY_VARIABLE}"
            )
        if response.is_error:
            return Generation(error=f"HTTP {response.status_code}: {response.text[:200]}")
        try:
            answer = response.json()
            choice = answer["choices"][0]
            message = choice["message"]
            text = _said(message.get("content"))
            thought = _said(message.get("reasoning_content")) or _said(message.get("reasoning"))
            is_cut = choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return Generation(error=f"not a chat completion: {response.text[:200]}")
        if text is None and thought is None:
            return Generation(error="the answer has no text content")
        usage = answer.get("usage")
        return Generation(
            text=text or "",
            thought=thought or "",
            num_tokens=_count(usage, "completion_tokens"),
            prompt_tokens=_count(usage, "prompt_tokens"),
            prompt_ids=_ids(answer.get("prompt_token_ids")),
            ids=_ids(choice.get("token_ids")),
            is_cut=is_cut,
        )


def _said(content: object) -> str | None:
    """The text of a message: a string, or a list of parts; None where it has none."""
    if isinstance(content, dict):
        content = content.get("text", content.get("content"))
    if isinstance(content, list):
        parts = [part for part in map(_said, content) if part is not None]
        return "".join(parts) if parts else None
    return content if isinstance(content, str) else None


def _count(usage: object, name: str) -> int:
    """A number of tokens; 0 for what is no whole number of some."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _ids(value: object) -> tuple[int, ...] | None:
    """A list of ids; None for anything else."""
    if isinstance(value, list) and all(isinstance(i, int) for i in value):
        return tuple(value)
    return None
