"""Clients of the retrieval server: a synchronous `Retriever`, and ranks for asynchronous rewards.

A broken server is never an empty answer: after bounded attempts within a deadline both raise
RetrieverError, which names the URL and the reason.
"""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType

import httpx
import stamina

from convsearch.errors import RetrieverError
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.transport import (
    WAIT_INITIAL_S,
    WAIT_MAX_S,
    ClientSettings,
    TransientError,
    base_url,
    gave_up,
    is_transient,
    read_result,
    reads_environment,
)
from convsearch.retrieval.wire import (
    MAX_PASSAGES,
    NOT_FOUND,
    PassagesResponse,
    ScoredDocumentsResponse,
)
from convsearch.types import Hit, Passage

Body = dict[str, object]

CHUNK_QUERIES = 256
"""Queries of one request of the synchronous client: small enough for the deadline on a laptop."""
CHUNK_CHARS = 4_000_000
"""Characters of one request: far below the server's limit, whatever the characters are."""
_POLL_S = 0.1


def _ranks_body(
    queries: Sequence[str],
    qids: Sequence[str] | None,
    golds: Sequence[Sequence[str]] | None,
    topk: int,
) -> Body:
    if (qids is None) == (golds is None):
        raise ValueError("give qids (gold passages from the server's qrels) or golds, one of them")
    body: Body = {"queries": list(queries), "topk": topk}
    if qids is not None:
        if len(qids) != len(queries):
            raise ValueError(f"each query needs a qid: got {len(qids)} for {len(queries)} queries")
        check_topk(topk)
        return {**body, "query_ids": list(qids)}
    check_rank_call(queries, golds or [], topk)
    return {**body, "gold_ids": [list(ids) for ids in golds or []]}


def _ranks_from(result: Sequence[object], url: str) -> list[int | None]:
    ranks: list[int | None] = []
    for value in result:
        if not isinstance(value, int) or isinstance(value, bool) or value == 0 or value < NOT_FOUND:
            raise RetrieverError(f"{url}: {value!r} is not a rank; is this another server's URL?")
        ranks.append(None if value == NOT_FOUND else value)
    return ranks


def _chunks(queries: Sequence[str]) -> list[slice]:
    """Consecutive slices that each hold few enough queries and characters."""
    slices, start, chars = [], 0, 0
    for i, query in enumerate(queries):
        if i > start and (i - start == CHUNK_QUERIES or chars + len(query) > CHUNK_CHARS):
            slices.append(slice(start, i))
            start, chars = i, 0
        chars += len(query)
    return [*slices, slice(start, len(queries))] if queries else []


class RetrieverClient:
    """A `Retriever` that asks a server. Safe for threads; close it or use it in a `with` block."""

    def __init__(self, url: str, *, timeout_s: float = 60.0, attempts: int = 5) -> None:
        """url: of the server, with or without `/retrieve`. timeout_s: deadline of one request (long
        lists go in requests of 256 queries), all attempts together. Raises ConfigError."""
        self.url = base_url(url)
        self._settings = ClientSettings(timeout_s=timeout_s, attempts=attempts)
        self._http = httpx.Client(trust_env=reads_environment(self.url))

    def __enter__(self) -> "RetrieverClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Returns when `/readyz` says so. Raises RetrieverError with the reason if it does not."""
        deadline = time.monotonic() + timeout_s
        reason = "it did not answer"
        while (left := deadline - time.monotonic()) > 0:
            try:
                response = self._http.get(f"{self.url}/readyz", timeout=left)
                if response.status_code == httpx.codes.OK:
                    return
                reason = f"it answered {response.status_code}: {response.text[:200]}"
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))
        raise RetrieverError(
            f"{self.url}: not ready within {timeout_s:g} s ({reason}); read the log of the server"
        )

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`; ids that the server does not know raise RetrieverError."""
        check_rank_call(queries, golds, topk)
        return [
            rank
            for part in _chunks(queries)
            for rank in self._ranks(_ranks_body(queries[part], None, golds[part], topk))
        ]

    def ranks_by_qid(
        self, queries: Sequence[str], qids: Sequence[str], topk: int
    ) -> list[int | None]:
        """Ranks of the gold passages that the server's qrels name; by position, qids may repeat."""
        _ranks_body(queries, qids, None, topk)
        return [
            rank
            for part in _chunks(queries)
            for rank in self._ranks(_ranks_body(queries[part], qids[part], None, topk))
        ]

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        check_topk(topk)
        found: list[list[Hit]] = []
        for part in _chunks(queries):
            body: Body = {
                "queries": list(queries[part]),
                "topk": topk,
                "return_scores": True,
                "with_contents": False,
            }
            result = self._post("/retrieve", body, len(queries[part]))
            try:
                answer = ScoredDocumentsResponse.model_validate({"result": result})
            except ValueError as error:
                raise RetrieverError(f"{self.url}/retrieve: not a list of hits ({error})") from None
            found += [
                [Hit(doc_id=doc.document.id, score=doc.score) for doc in docs]
                for docs in answer.result
            ]
        return found

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`; an unknown id raises RetrieverError."""
        found: list[Passage] = []
        for start in range(0, len(doc_ids), MAX_PASSAGES):
            ids = list(doc_ids[start : start + MAX_PASSAGES])
            result = self._post("/passages", {"doc_ids": ids}, len(ids))
            try:
                answer = PassagesResponse.model_validate({"result": result})
            except ValueError as error:
                raise RetrieverError(f"{self.url}/passages: not passages ({error})") from None
            found += [Passage(doc_id=p.doc_id, title=p.title, text=p.text) for p in answer.result]
        return found

    def _ranks(self, body: Body) -> list[int | None]:
        queries = body["queries"]
        expected = len(queries) if isinstance(queries, list) else 0
        return _ranks_from(self._post("/retrieve", body, expected), self.url)

    def _post(self, path: str, body: Body, expected: int) -> list[object]:
        url = self.url + path
        start = time.monotonic()
        deadline = start + self._settings.timeout_s
        tried = 0
        try:
            for attempt in stamina.retry_context(
                on=lambda error: is_transient(error) and time.monotonic() < deadline,
                attempts=self._settings.attempts,
                timeout=self._settings.timeout_s,
                wait_initial=WAIT_INITIAL_S,
                wait_max=WAIT_MAX_S,
                wait_jitter=WAIT_INITIAL_S,
            ):
                with attempt:
                    tried += 1
                    left = max(0.001, deadline - time.monotonic())
                    return read_result(self._http.post(url, json=body, timeout=left), expected)
        except (TransientError, httpx.HTTPError) as error:
            raise gave_up(url, tried, time.monotonic() - start, error) from None
        raise AssertionError("the retry loop returns or raises")


class AsyncRanker:
    """Ranks over one pool of connections, for reward managers. Use it within one event loop."""

    def __init__(self, url: str, *, timeout_s: float = 60.0, attempts: int = 5) -> None:
        """url: of the server, with or without `/retrieve`. timeout_s: deadline of one call, all its
        attempts and waits together. Raises ConfigError."""
        self.url = base_url(url)
        self._settings = ClientSettings(timeout_s=timeout_s, attempts=attempts)
        self._http = httpx.AsyncClient(trust_env=reads_environment(self.url), timeout=None)

    async def ranks(
        self,
        queries: Sequence[str],
        *,
        qids: Sequence[str] | None = None,
        golds: Sequence[Sequence[str]] | None = None,
        topk: int = 100,
    ) -> list[int | None]:
        """One rank for each query, by position: 1-based, None where no gold passage is within topk.

        Gold passages by `qids` (from the server's qrels) or `golds`. One request: at most 2,048
        queries. Raises ValueError for arguments that do not fit, RetrieverError at once where the
        server refuses, and after the last attempt or the deadline where it fails.
        """
        body = _ranks_body(queries, qids, golds, topk)
        if not queries:
            return []
        url = f"{self.url}/retrieve"
        start = time.monotonic()
        tried = 0

        async def attempts() -> list[object]:
            nonlocal tried
            async for attempt in stamina.retry_context(
                on=is_transient,
                attempts=self._settings.attempts,
                timeout=None,
                wait_initial=WAIT_INITIAL_S,
                wait_max=WAIT_MAX_S,
                wait_jitter=WAIT_INITIAL_S,
            ):
                with attempt:
                    tried += 1
                    return read_result(await self._http.post(url, json=body), len(queries))
            raise AssertionError("the retry loop returns or raises")

        try:
            result = await asyncio.wait_for(attempts(), self._settings.timeout_s)
        except (TransientError, httpx.HTTPError) as error:
            raise gave_up(url, tried, time.monotonic() - start, error) from None
        except asyncio.TimeoutError:  # not the builtin on Python 3.10
            late = TransientError(f"deadline of {self._settings.timeout_s:g} s passed")
            raise gave_up(url, tried, time.monotonic() - start, late) from None
        return _ranks_from(result, url)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()
