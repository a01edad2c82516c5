"""The asynchronous client of the retrieval server, for reward managers and agents."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

import httpx
import stamina

from convsearch.network.clients import async_client
from convsearch.network.retries import Backoff, TransientError
from convsearch.retrieval.cache import AnswerCache
from convsearch.retrieval.client import Answer, passages_from
from convsearch.retrieval.info import IndexInfo
from convsearch.retrieval.questions import (
    Asked,
    Question,
    conversation,
    hits_of,
    qid_questions,
    rank_questions,
    ranks_of,
    search_questions,
)
from convsearch.retrieval.transport import (
    DEFAULT_ATTEMPTS,
    DEFAULT_TIMEOUT_S,
    WAITS,
    ClientSettings,
    Reply,
    address_of,
    gave_up,
    read_info,
    read_ready,
    read_reply,
)
from convsearch.retrieval.wire import MAX_PASSAGES
from convsearch.types import Hit, Passage


class AsyncRetrieverClient:
    """`RetrieverClient` for one event loop: the same methods, errors and retries, awaited.

    Calls may run side by side over one pool of connections. Cancelling a call closes its
    connection, and the server stops working for it.
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        attempts: int = DEFAULT_ATTEMPTS,
        api_key: str | None = None,
        cache: AnswerCache | None = None,
        allow_degraded: bool = False,
    ) -> None:
        """See `RetrieverClient`. Raises ConfigError."""
        self._address = address_of(url, index)
        self.url = self._address.base
        self._settings = ClientSettings(timeout_s=timeout_s, attempts=attempts, api_key=api_key)
        self._cache = cache
        self._allow_degraded = allow_degraded
        self._http = async_client(
            self.url,
            headers=self._settings.headers,
            params=self._address.params,
            timeout=None,
        )

    async def read_info(self) -> IndexInfo | None:
        """See `RetrieverClient.read_info`."""
        url = f"{self.url}/readyz"

        async def once() -> IndexInfo | None:
            return read_info(await self._http.get(url))

        return await self._tried(url, once)

    async def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `RetrieverClient.ranks`."""
        return ranks_of(await self._ask(rank_questions(queries, golds, topk)))

    async def ranks_by_qid(
        self, queries: Sequence[str], qids: Sequence[str], topk: int
    ) -> list[int | None]:
        """See `RetrieverClient.ranks_by_qid`."""
        return ranks_of(await self._ask(qid_questions(queries, qids, topk)))

    async def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        return hits_of(
            await self._ask(search_questions(queries, topk, allow_degraded=self._allow_degraded))
        )

    async def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `RetrieverClient.passages`."""
        found: list[Passage] = []
        for start in range(0, len(doc_ids), MAX_PASSAGES):
            ids = list(doc_ids[start : start + MAX_PASSAGES])
            found += passages_from(
                (await self._send("/passages", {"doc_ids": ids}, len(ids))).result, self.url
            )
        return found

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _ask(self, questions: Sequence[Question]) -> list[object]:
        talk: Generator[Asked, Reply, list[object]] = conversation(
            questions, url=self.url, cache=self._cache
        )
        try:
            asked = next(talk)
            while True:
                path = "/retrieve" if asked.body is not None else "/readyz"
                reply = await self._send(path, asked.body, asked.expected, asked.allow_degraded)
                asked = talk.send(reply)
        except StopIteration as end:
            return end.value

    async def _send(
        self,
        path: str,
        body: Mapping[str, object] | None,
        expected: int,
        allow_degraded: bool = False,
    ) -> Reply:
        url = self.url + path

        async def once() -> Reply:
            if body is None:
                return read_ready(await self._http.get(url))
            response = await self._http.post(url, json=body)
            return read_reply(response, expected, allow_degraded=allow_degraded)

        return await self._tried(url, once)

    async def _tried(self, url: str, once: Callable[[], Coroutine[None, None, Answer]]) -> Answer:
        """The answer to one request, after as many attempts as it needs and may have."""
        start = time.monotonic()
        deadline = start + self._settings.timeout_s
        tried = 0
        try:
            async for attempt in stamina.retry_context(
                on=Backoff(deadline, WAITS), attempts=self._settings.attempts, timeout=None
            ):
                with attempt:
                    tried += 1
                    left = max(0.001, deadline - time.monotonic())
                    patience_s = min(left, self._settings.attempt_s)
                    try:
                        return await asyncio.wait_for(once(), patience_s)
                    except asyncio.TimeoutError:  # not the builtin on Python 3.10
                        raise TransientError(f"no answer within {patience_s:.1f} s") from None
        except (TransientError, httpx.HTTPError) as error:
            raise gave_up(url, tried, time.monotonic() - start, error) from None
        raise AssertionError("the retry loop returns or raises")
