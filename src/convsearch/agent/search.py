"""The search tool: all variants of all agents in one batch, fused, squeezed, within a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convsearch.agent.escape import escape
from convsearch.agent.fusion import cut_to_tokens, fit_passages, fuse
from convsearch.agent.machine import Evidence, estimate_tokens
from convsearch.agent.squeeze import SqueezeMeter, Squeezer, SqueezeRequest
from convsearch.errors import ConfigError
from convsearch.retrieval import Retriever
from convsearch.types import Passage

_TITLE_CHARS = 300
_MOST_CHARS_OF_A_PASSAGE = 200_000
"""Longer passages are cut before anything looks at them."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a call is answered."""

    topk: int = 3
    """Passages of each query."""
    max_documents: int | None = None
    """Passages of one call after fusion; None keeps all. One number for strategies of one and of
    several queries gives them the same budget of documents."""
    max_result_tokens: int = 1024
    """Longest text that one call brings into the context."""

    def __post_init__(self) -> None:
        for name in ("topk", "max_documents", "max_result_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, got {value}")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One agent's pending call."""

    question: str
    queries: tuple[str, ...]


class SearchTool:
    """Answers calls. squeezer None: passages as they are. count_tokens: the model's, or estimated.

    `meter` counts the squeezer's failures over the life of the tool.
    """

    def __init__(
        self,
        retriever: Retriever,
        settings: SearchSettings,
        *,
        squeezer: Squeezer | None = None,
        count_tokens: Callable[[str], int] = estimate_tokens,
    ) -> None:
        self.settings = settings
        self.squeezer_name = squeezer.name if squeezer else "none"
        self.meter = SqueezeMeter()
        self.retriever = retriever
        self._squeezer = squeezer
        self._count = count_tokens

    def answer(self, calls: Sequence[Call]) -> list[Evidence]:
        """One Evidence for each call, by position.

        Every distinct query goes to the search engine once, all in one request. Raises what the
        retriever raises (a dead server is never an empty result), and EngineError where the
        squeezer fails too often.
        """
        if not calls:
            return []
        queries = list(dict.fromkeys(query for call in calls for query in call.queries))
        lists = dict(zip(queries, self.retriever.search(queries, self.settings.topk), strict=True))
        fused = [
            tuple(
                hit.doc_id
                for hit in fuse([lists[q] for q in call.queries], self.settings.max_documents)
            )
            for call in calls
        ]
        ids = list(dict.fromkeys(doc_id for found in fused for doc_id in found))
        found_passages = map(_as_data, self.retriever.passages(ids)) if ids else ()
        passages = dict(zip(ids, found_passages, strict=True))
        requests = [
            SqueezeRequest(
                question=call.question,
                queries=call.queries,
                passages=tuple(passages[doc_id] for doc_id in found),
            )
            for call, found in zip(calls, fused, strict=True)
        ]
        return self._squeezed(requests, fused)

    def _squeezed(
        self, requests: list[SqueezeRequest], fused: list[tuple[str, ...]]
    ) -> list[Evidence]:
        limit = self.settings.max_result_tokens
        asked = [i for i, request in enumerate(requests) if request.passages]
        texts: dict[int, str] = {}
        if self._squeezer and asked:
            made = self._squeezer.squeeze([requests[i] for i in asked], limit)
            for i, text in zip(asked, made, strict=True):
                fitting = cut_to_tokens(escape(text or "").strip(), limit, self._count)
                if fitting:
                    texts[i] = fitting
            self.meter.add(len(asked), len(asked) - len(texts))
        evidence: list[Evidence] = []
        for i, request in enumerate(requests):
            if i in texts:
                evidence.append(Evidence(text=texts[i], doc_ids=fused[i], squeezed=True))
                continue
            text, num_kept = fit_passages(request.passages, limit, self._count)
            failed = bool(self._squeezer and request.passages)
            evidence.append(
                Evidence(text=text, doc_ids=fused[i][:num_kept], squeezed=False if failed else None)
            )
        return evidence


def _as_data(passage: Passage) -> Passage:
    """Escaped before it is measured, since escaping makes a text longer."""
    return Passage(
        doc_id=passage.doc_id,
        title=escape(passage.title[:_TITLE_CHARS]),
        text=escape(passage.text[:_MOST_CHARS_OF_A_PASSAGE]),
    )
