"""What is asked of a server, apart from how it is sent: both clients drive `conversation`.

Equal questions of one call are asked once: engines are deterministic, and a group of rollouts
often repeats itself. Answers go back to every place that asked.
"""

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum

from convsearch.errors import DataError, RetrieverError
from convsearch.retrieval.cache import AnswerCache
from convsearch.retrieval.checks import check_rank_call, check_topk
from convsearch.retrieval.transport import Reply, Source
from convsearch.retrieval.wire import NOT_FOUND, ScoredDocumentsResponse
from convsearch.texts import mended
from convsearch.types import Hit

Body = dict[str, object]

CHUNK_QUERIES = 256
"""Queries of one request: few enough for the server's deadline on a laptop."""
CHUNK_CHARS = 2_000_000
"""Characters of one request: below the server's limit, whatever the characters are."""
_MAX_STARTS = 3
"""Starts of one call, each after the server changed its index under it."""

_log = logging.getLogger(__name__)


class Kind(str, Enum):
    """What is asked about a query."""

    RANK = "rank"
    """Of the best of these passages."""
    RANK_BY_QID = "rank_by_qid"
    """Of the best gold passage of this query id."""
    SEARCH = "search"
    """The best passages."""


@dataclass(frozen=True)
class Question:
    """One query, and what is asked about it. Equal questions have equal answers."""

    kind: Kind
    query: str
    about: tuple[str, ...]
    """Gold passages, or the query id."""
    topk: int
    allow_degraded: bool = False
    """Never for a rank: it would be too good, and the model would learn from it."""

    def key(self, source: Source) -> tuple[object, ...]:
        """Everything the answer depends on. Gold passages are a set."""
        qrels = source.qrels_fingerprint if self.kind is Kind.RANK_BY_QID else ""
        about = tuple(sorted(set(self.about)))
        return (source.fingerprint, qrels, self.kind.value, self.query, about, self.topk)


@dataclass(frozen=True)
class Asked:
    """One request; without a body, the question which index is served."""

    body: Body | None
    expected: int

    @property
    def allow_degraded(self) -> bool:
        """Whether an answer from a part of the passages will do."""
        return self.body is not None and self.body.get("allow_degraded") is True


def rank_questions(
    queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
) -> list[Question]:
    """Raises ValueError for arguments that do not fit, as every `Retriever` does."""
    check_rank_call(queries, golds, topk)
    pairs = zip(queries, golds, strict=True)
    return [Question(Kind.RANK, query, tuple(ids), topk) for query, ids in pairs]


def qid_questions(queries: Sequence[str], qids: Sequence[str], topk: int) -> list[Question]:
    """Raises ValueError where there is not one qid for each query."""
    check_topk(topk)
    if len(qids) != len(queries):
        raise ValueError(f"each query needs a qid: got {len(qids)} for {len(queries)} queries")
    pairs = zip(queries, qids, strict=True)
    return [Question(Kind.RANK_BY_QID, query, (qid,), topk) for query, qid in pairs]


def search_questions(
    queries: Sequence[str], topk: int, *, allow_degraded: bool = False
) -> list[Question]:
    """allow_degraded: take lists from a part of the passages. Raises ValueError for a topk below
    1."""
    check_topk(topk)
    return [Question(Kind.SEARCH, query, (), topk, allow_degraded) for query in queries]


def conversation(
    questions: Sequence[Question], *, url: str, cache: AnswerCache | None
) -> Generator[Asked, Reply, list[object]]:
    """Yields requests, takes their replies, returns one answer for each question, by position.

    questions: all of one kind and topk. cache: consulted and filled; only answers of the index
    that the server has now are taken from it. All answers of one call come from one index: where
    the server is restarted with another one in between, the call starts over.
    Raises RetrieverError for replies that are not answers, or an index that keeps changing, and
    DataError for a cache that holds something else.
    """
    unique = list(dict.fromkeys(questions))
    for _ in range(_MAX_STARTS if unique else 0):
        known: dict[Question, object] = {}
        source: Source | None = None
        if cache is not None:
            source = (yield Asked(None, 0)).source
            known = _recall(cache, unique, source)
        for chunk in _chunks([question for question in unique if question not in known]):
            reply = yield Asked(_body(chunk), len(chunk))
            if source is not None and source != reply.source:
                _log.warning("%s: the server has changed its index; asking again", url)
                break
            source = reply.source
            if reply.num_truncated:
                _log.warning("%s: the server cut %d long queries", url, reply.num_truncated)
            if reply.coverage < 1:
                share = 100 * reply.coverage
                _log.warning(
                    "%s: lists from %.3g %% of the passages; shards are missing", url, share
                )
            answers = _read(chunk[0].kind, reply.result, url)
            known.update(zip(chunk, answers, strict=True))
            if cache is not None and source.fingerprint and reply.coverage == 1:
                keys = [question.key(source) for question in chunk]
                cache.put(dict(zip(keys, answers, strict=True)))
        else:
            return [known[question] for question in questions]
    if not unique:
        return []
    raise RetrieverError(f"{url}: the server changed its index {_MAX_STARTS} times during one call")


def ranks_of(answers: Sequence[object]) -> list[int | None]:
    """Answers to questions for ranks, with their type."""
    return [answer if isinstance(answer, int) else None for answer in answers]


def hits_of(answers: Sequence[object]) -> list[list[Hit]]:
    """Answers to searches as hits."""
    return [
        [Hit(doc_id=doc_id, score=score) for doc_id, score in answer]
        for answer in answers
        if isinstance(answer, list)
    ]


def _recall(
    cache: AnswerCache, questions: Sequence[Question], source: Source
) -> dict[Question, object]:
    if not source.fingerprint:
        return {}
    keys = {question: question.key(source) for question in questions}
    found = cache.get([*keys.values()])
    known = {question: found[i] for i, question in enumerate(keys) if i in found}
    for question, answer in known.items():
        if not _is_answer(question.kind, answer):
            raise DataError(
                f"the cache of retrieval answers holds {answer!r} for a {question.kind.value}, "
                "which no server answers; remove its file, or name another"
            )
    return known


def _is_answer(kind: Kind, value: object) -> bool:
    """Whether a value has the form in which `_read` gives answers."""
    if kind is not Kind.SEARCH:
        return value is None or (type(value) is int and value > 0)
    return isinstance(value, list) and all(
        isinstance(hit, list) and [*map(type, hit)] == [str, float] for hit in value
    )


def _body(chunk: Sequence[Question]) -> Body:
    first = chunk[0]
    body: Body = {"queries": [mended(question.query) for question in chunk], "topk": first.topk}
    if first.kind is Kind.RANK:
        return {**body, "gold_ids": [list(question.about) for question in chunk]}
    if first.kind is Kind.RANK_BY_QID:
        return {**body, "query_ids": [question.about[0] for question in chunk]}
    if first.allow_degraded:
        body["allow_degraded"] = True
    return {**body, "return_scores": True, "with_contents": False}


def _read(kind: Kind, result: list[object], url: str) -> list[object]:
    """Checked answers as JSON holds them: ranks (None: not found), or lists of [doc_id, score]."""
    if kind is not Kind.SEARCH:
        return [_rank(value, url) for value in result]
    try:
        answer = ScoredDocumentsResponse.model_validate({"result": result})
    except ValueError as error:
        raise RetrieverError(f"{url}: not a list of hits ({error})") from None
    return [[[doc.document.id, doc.score] for doc in docs] for docs in answer.result]


def _rank(value: object, url: str) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or value == 0 or value < NOT_FOUND:
        raise RetrieverError(f"{url}: {value!r} is not a rank; is this another server's URL?")
    return None if value == NOT_FOUND else value


def _chunks(questions: Sequence[Question]) -> list[Sequence[Question]]:
    """Consecutive parts that each hold few enough queries and characters."""
    parts: list[Sequence[Question]] = []
    start, chars = 0, 0
    for i, question in enumerate(questions):
        size = len(question.query)
        if i > start and (i - start == CHUNK_QUERIES or chars + size > CHUNK_CHARS):
            parts.append(questions[start:i])
            start, chars = i, 0
        chars += size
    return [*parts, questions[start:]] if questions else []
