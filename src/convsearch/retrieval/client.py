"""The synchronous client of the retrieval server: a `Retriever` over HTTP.

A broken server is never an empty answer: after bounded attempts within a deadline the client
raises RetrieverError, which names the URL and the reason.
"""

import copy
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

import httpx
import stamina

from convsearch.errors import RetrieverError
from convsearch.network.clients import http_client
from convsearch.network.retries import Backoff, TransientError
from convsearch.retrieval.cache import AnswerCache
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
    is_foreign,
    read_info,
    read_ready,
    read_reply,
    start_command,
)
from convsearch.retrieval.wire import MAX_PASSAGES, PassagesResponse
from convsearch.types import Hit, Passage

_POLL_S = 0.1
Answer = TypeVar("Answer")


class RetrieverClient:
    """A `Retriever` that asks a server. Safe for threads; close it or use it in a `with` block."""

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
        """url: of the server, with or without `/retrieve` and `?index=NAME`. index: which of its
        indexes; None is the first. timeout_s: deadline of one request (long lists go in requests
        of 256 queries), all attempts together. api_key: None takes RETRIEVER_API_KEY. cache: asked
        first; stays open when the client closes. allow_degraded: take lists (never ranks) from a
        part of the passages while shards of the server are missing, with a warning in the log.
        Raises ConfigError."""
        self._address = address_of(url, index)
        self.url = self._address.base
        self._max_length: int | None = None
        self._settings = ClientSettings(timeout_s=timeout_s, attempts=attempts, api_key=api_key)
        self._cache = cache
        self._allow_degraded = allow_degraded
        self._http = http_client(
            self.url,
            headers=self._settings.headers,
            params=self._address.params,
        )

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

    def with_query_length(self, max_length: int) -> "RetrieverClient":
        """The same client, asking dense engines to read that many tokens of a query; it shares the
        connections and asks no cache."""
        other = copy.copy(self)
        other._max_length, other._cache = max_length, None
        return other

    def wait_ready(self, timeout_s: float) -> None:
        """Returns when `/readyz` says so, or says that there is no such path, as servers of other
        programs do. Raises RetrieverError with the reason if it does not."""
        deadline = time.monotonic() + timeout_s
        reason, answered = "it did not answer", False
        while (left := deadline - time.monotonic()) > 0:
            try:
                response = self._http.get(f"{self.url}/readyz", timeout=left)
                if response.status_code == httpx.codes.OK or is_foreign(response):
                    return
                answered = True
                reason = f"it answered {response.status_code}: {response.text[:200]}"
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))
        if answered:
            raise RetrieverError(
                f"{self.url}: not ready within {timeout_s:g} s ({reason}); read the log of the "
                "server"
            )
        raise RetrieverError(
            f"no server answers at {self.url}, not ready within {timeout_s:g} s ({reason}); start "
            f"it with {start_command(self.url)}, or mend the address"
        )

    def read_info(self) -> IndexInfo | None:
        """Asks the server which index it searches; None where it does not tell, as servers of other
        programs do. Raises RetrieverError where it does not answer."""
        url = f"{self.url}/readyz"
        return self._tried(url, lambda left_s: read_info(self._http.get(url, timeout=left_s)))

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        """See `Retriever.ranks`; ids that the server does not know raise RetrieverError."""
        return ranks_of(self._ask(rank_questions(queries, golds, topk)))

    def ranks_by_qid(
        self, queries: Sequence[str], qids: Sequence[str], topk: int
    ) -> list[int | None]:
        """Ranks of the gold passages that the server's qrels name; by position, qids may repeat."""
        return ranks_of(self._ask(qid_questions(queries, qids, topk)))

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        return hits_of(
            self._ask(search_questions(queries, topk, allow_degraded=self._allow_degraded))
        )

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        """See `Retriever.passages`; an unknown id raises RetrieverError."""
        found: list[Passage] = []
        for start in range(0, len(doc_ids), MAX_PASSAGES):
            ids = list(doc_ids[start : start + MAX_PASSAGES])
            result = self._send("/passages", {"doc_ids": ids}, len(ids)).result
            found += passages_from(result, self.url)
        return found

    def _ask(self, questions: Sequence[Question]) -> list[object]:
        talk: Generator[Asked, Reply, list[object]] = conversation(
            questions, url=self.url, cache=self._cache
        )
        try:
            asked = next(talk)
            while True:
                path = "/retrieve" if asked.body is not None else "/readyz"
                reply = self._send(path, asked.body, asked.expected, asked.allow_degraded)
                asked = talk.send(reply)
        except StopIteration as end:
            return end.value

    def _send(
        self,
        path: str,
        body: Mapping[str, object] | None,
        expected: int,
        allow_degraded: bool = False,
    ) -> Reply:
        url = self.url + path
        if self._max_length is not None and path == "/retrieve" and body is not None:
            body = {**body, "max_length": self._max_length}

        def once(timeout_s: float) -> Reply:
            if body is None:
                return read_ready(self._http.get(url, timeout=timeout_s))
            response = self._http.post(url, json=body, timeout=timeout_s)
            return read_reply(response, expected, allow_degraded=allow_degraded)

        return self._tried(url, once)

    def _tried(self, url: str, once: Callable[[float], Answer]) -> Answer:
        """The answer to one request, after as many attempts as it needs and may have.

        once: one attempt within so many seconds.
        """
        start = time.monotonic()
        deadline = start + self._settings.timeout_s
        tried = 0
        try:
            for attempt in stamina.retry_context(
                on=Backoff(deadline, WAITS), attempts=self._settings.attempts, timeout=None
            ):
                with attempt:
                    tried += 1
                    left = max(0.001, deadline - time.monotonic())
                    return once(min(left, self._settings.attempt_s))
        except (TransientError, httpx.HTTPError) as error:
            raise gave_up(url, tried, time.monotonic() - start, error) from None
        raise AssertionError("the retry loop returns or raises")


def passages_from(result: list[object], url: str) -> list[Passage]:
    """The passages of an answer. Raises RetrieverError where it holds something else."""
    try:
        answer = PassagesResponse.model_validate({"result": result})
    except ValueError as error:
        raise RetrieverError(f"{url}/passages: not passages ({error})") from None
    return [Passage(doc_id=p.doc_id, title=p.title, text=p.text) for p in answer.result]
