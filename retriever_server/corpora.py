"""The indexes that one server searches, by name."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from fastapi import HTTPException

from convsearch.errors import DataError, EngineError
from convsearch.files import Qrels, gold_ids
from convsearch.retrieval.info import info_of
from convsearch.retrieval.protocol import Retriever
from convsearch.retrieval.wire import FINGERPRINT_HEADER, QRELS_HEADER, IndexCard
from retriever_server.batching import CPU, Guard, SearchQueue, device_of
from retriever_server.cores import give_way
from retriever_server.metrics import Metrics
from retriever_server.parts import DegradedError, PartlyAnswering
from retriever_server.store import PassageStore
from retriever_server.watch import IndexWatch

_log = logging.getLogger(__name__)
_SELF_QUERY = "is anyone there"
_AGAIN_S = 0.5


@dataclass(frozen=True)
class Corpus:
    """A loaded engine, and the gold passages of the query ids that clients may send."""

    engine: Retriever
    qrels: Qrels | None = None


@dataclass(frozen=True)
class NotReady:
    """Why queries cannot be answered."""

    reason: str
    lasting: bool = False
    """Whether it stays so however long one waits."""


class ServedCorpus:
    """A corpus with its queue. `open` and `close` belong to the event loop of the server."""

    def __init__(self, corpus: Corpus, queue: SearchQueue, guard: Guard) -> None:
        self.engine = corpus.engine
        self.queue = queue
        self.guarded = guard
        """Does work that reads the index outside of the queue, such as texts of passages."""
        self._qrels = corpus.qrels
        self._self_query: asyncio.Task[None] | None = None
        info = info_of(corpus.engine)
        self._card = IndexCard(
            engine=info.engine if info else type(corpus.engine).__name__,
            num_passages=info.num_passages if info else None,
            fingerprint=info.fingerprint if info else None,
            qrels_fingerprint=_fingerprint(corpus.qrels) if corpus.qrels is not None else None,
        )
        found = {
            FINGERPRINT_HEADER: self._card.fingerprint,
            QRELS_HEADER: self._card.qrels_fingerprint,
        }
        self.headers = {name: value for name, value in found.items() if value is not None}
        """Of every answer from this corpus."""

    @property
    def card(self) -> IndexCard:
        """What it is, and how much of it can be searched now."""
        if isinstance(self.engine, PartlyAnswering):
            return self._card.model_copy(update={"coverage": self.engine.coverage})
        return self._card

    def open(self) -> "asyncio.Task[None]":
        """Asks the engine its first questions; the task ends with its answers or failure."""
        self._self_query = asyncio.create_task(self._first_queries())
        return self._self_query

    async def _first_queries(self) -> None:
        """A list, and the rank of what is first in it: both ways are compiled, and agree. Where
        nothing in the corpus matches, the rank of any passage. A shard that is missing is waited
        for."""
        while True:
            try:
                [hits] = await self.queue.search([_SELF_QUERY], 1)
                expected = 1 if hits else None
                gold = [hit.doc_id for hit in hits] or self._any_passage()
                if not gold:
                    return
                [rank] = await self.queue.ranks([_SELF_QUERY], [gold], 1)
                break
            except DegradedError:
                await asyncio.sleep(_AGAIN_S)
        if rank != expected:
            place = "first in a list" if hits else "in no list"
            raise EngineError(
                f"passage {gold[0]!r} is {place} and has rank {rank}; rebuild the index"
            )

    def _any_passage(self) -> list[str]:
        """The id of one passage, where the engine has ids at hand."""
        store = getattr(self.engine, "store", None)
        return [store.doc_id(0)] if isinstance(store, PassageStore) else []

    def close(self) -> None:
        """Ends the queue."""
        if self._self_query is not None:
            self._self_query.cancel()
        self.queue.close()

    @property
    def not_ready(self) -> NotReady | None:
        """Why it cannot answer, or None."""
        task = self._self_query
        if task is None or not task.done():
            return NotReady("the engine has not answered its first query yet; try again")
        if task.cancelled():
            return NotReady("the server is stopping")
        if failure := task.exception():
            reason = f"the engine failed at its first query: {failure}; read the log"
            return NotReady(reason, lasting=True)
        return None

    def golds_of(self, qid: str) -> list[str]:
        """Gold passages of a query id. Raises HTTPException with the status to answer."""
        if self._qrels is None:
            raise HTTPException(
                422, 'this index has no qrels; start it with --trec_path or send "gold_ids"'
            )
        try:
            golds = gold_ids(self._qrels, qid)
        except DataError as error:
            raise HTTPException(404, str(error)) from None
        if not golds:
            raise HTTPException(404, f"qid {qid!r} has no relevant passage in the qrels")
        return golds


class Corpora:
    """All of them; the first answers requests that name none."""

    def __init__(
        self, corpora: Mapping[str, Corpus], *, max_batch_queries: int, metrics: Metrics,
        damage: Callable[[str], str | None] = lambda name: None, watch: IndexWatch | None = None,
    ) -> None:  # fmt: skip
        """corpora: by name, at least one. damage: see `BackgroundCheck.damage`. watch: of the
        files behind the names."""
        self._read_damage = damage
        self._watch = watch = watch or IndexWatch({})
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._served: dict[str, ServedCorpus] = {}
        for name, corpus in corpora.items():
            queue = SearchQueue(
                corpus.engine,
                self._thread_of(corpus.engine, name),
                max_queries=max_batch_queries,
                metrics=metrics.queue(name),
                guard=partial(watch.guarded, name),
            )
            self._served[name] = ServedCorpus(corpus, queue, partial(watch.guarded, name))
        self._first = next(iter(self._served))

    def __getitem__(self, name: str | None) -> ServedCorpus:
        """Raises HTTPException: 404 for a name that is not served, 503 for a damaged index."""
        name = self._first if name is None else name
        found = self._served.get(name)
        if reason := self._damage(name):
            raise HTTPException(503, reason)
        if found is None:
            raise HTTPException(
                404, f"no index {name!r} here; there are: {', '.join(self._served)}"
            )
        return found

    def open(self) -> "asyncio.Task[object]":
        """Starts the first queries. The task ends when all are answered, with the first failure."""

        async def all_answered() -> None:
            opened = {name: served.open() for name, served in self._served.items()}
            for name, task in opened.items():
                task.add_done_callback(partial(_log_failure, name))
            await asyncio.gather(*opened.values())

        return asyncio.create_task(all_answered())

    def close(self) -> None:
        """Ends the queues; calls that run go on in their threads."""
        for served in self._served.values():
            served.close()
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def searching(self) -> bool:
        """Whether an engine call runs."""
        return any(served.queue.searching for served in self._served.values())

    @property
    def not_ready(self) -> NotReady | None:
        """Why one of them cannot answer, or None; what lasts before what passes."""
        found: list[NotReady] = []
        for name, served in self._served.items():
            self._watch.look(name)
            damage = self._damage(name)
            one = NotReady(damage, lasting=True) if damage else served.not_ready
            if one is not None:
                prefix = f"index {name!r}: " if len(self._served) > 1 else ""
                found.append(replace(one, reason=prefix + one.reason))
        return min(found, key=lambda one: not one.lasting, default=None)

    @property
    def cards(self) -> dict[str, dict[str, object]]:
        """What each of them is, by name."""
        return {name: served.card.model_dump() for name, served in self._served.items()}

    @property
    def coverage(self) -> dict[str, float]:
        """Share of the passages of each that can be searched now, by name."""
        return {name: served.card.coverage for name, served in self._served.items()}

    def _damage(self, name: str) -> str | None:
        return self._watch.damage(name) or self._read_damage(name)

    def _thread_of(self, engine: Retriever, name: str) -> ThreadPoolExecutor:
        """One thread for the accelerators, one for each engine without any."""
        device = device_of(engine)
        key = f"{name}@{CPU}" if device == CPU else device
        if key not in self._threads:
            # on a processor that is searching, the event loop would wait for its slice to end
            self._threads[key] = ThreadPoolExecutor(
                1,
                thread_name_prefix=f"search-{key}",
                initializer=give_way if device == CPU else None,
            )
        return self._threads[key]


def _log_failure(name: str, first_queries: "asyncio.Task[None]") -> None:
    if not first_queries.cancelled() and (failure := first_queries.exception()):
        _log.error("index %r failed at its first query", name, exc_info=failure)


def _fingerprint(qrels: Qrels) -> str:
    return hashlib.sha256(json.dumps(qrels, sort_keys=True).encode()).hexdigest()
