"""The wire contract of the retrieval server: what is posted and what comes back.

`POST /retrieve` speaks the shapes of three families of clients. With `query_ids` or `gold_ids` it
answers ranks (ConvSearch-R1), otherwise documents (Search-R1, verl, ferret with `queries`; SkyRL
with a single `query`). Every list in a result has one entry for each query, by position.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from convsearch.texts import mended

NOT_FOUND = -1
"""Rank on the wire of a gold passage that is not within topk; `None` everywhere else."""
MAX_QUERIES = 2048
"""Of one request: a GRPO step sends 128 prompts x 8 rewrites, some recipes 256 x 8."""
MAX_TOPK = 1000
"""Depth of the deepest evaluation in use (R@1000); also bounds the size of an answer."""
MAX_PASSAGES = 100_000
"""Ids of one `/passages` request: a hundred passages for each of a thousand queries."""
MAX_QUERY_CHARS = 8192
"""Longer queries are cut there: no engine reads further, and a runaway rewrite costs no more."""
MAX_BODY_BYTES = 16 * 1024 * 1024
"""MAX_QUERIES queries of MAX_QUERY_CHARS ASCII characters; ordinary requests are below 1 MB."""
FINGERPRINT_HEADER = "X-Index-Fingerprint"
"""Of an answer: the index that gave it."""
QRELS_HEADER = "X-Qrels-Fingerprint"
"""Of an answer: the qrels behind its query ids, where the server has any."""
REQUEST_ID_HEADER = "X-Request-ID"
"""Of every answer: its name in the server's log."""
DEFAULT_TOPK_RANKS = 100
"""Last rank that the reward looks at."""
DEFAULT_TOPK_DOCUMENTS = 3
"""Documents an agent reads in one turn: the default of the Search-R1 server."""


Id = Annotated[str, AfterValidator(mended)]
"""As ids of files are read: halves of surrogate pairs become "?"."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class RetrieveRequest(_Wire):
    """One search. Give `queries` or `query`; for ranks also `query_ids` or `gold_ids`."""

    queries: list[str] | None = Field(default=None, max_length=MAX_QUERIES)
    query: str | None = Field(default=None, description="a single query; same as queries of one")
    query_ids: list[Id] | None = Field(
        default=None, description="rank the gold passages of these ids in the server's qrels"
    )
    gold_ids: list[list[Id]] | None = Field(
        default=None, description="rank these passages, at least one for each query"
    )
    topk: int | None = Field(
        default=None,
        ge=1,
        le=MAX_TOPK,
        description=f"{DEFAULT_TOPK_RANKS} for ranks, {DEFAULT_TOPK_DOCUMENTS} for documents",
    )
    return_scores: bool | None = Field(
        default=None,
        description="documents only: wrap each in {document, score}; absent: true for `query` only",
    )
    with_contents: bool = Field(
        default=True, description="documents only: false leaves the texts out"
    )
    max_length: int | None = Field(
        default=None, ge=1, description="query tokens that a dense encoder reads; BM25 reads all"
    )
    allow_degraded: bool = Field(
        default=False,
        description="take an answer from a part of the passages where shards are missing; absent: "
        "503 until they are back",
    )

    @model_validator(mode="after")
    def _one_shape(self) -> "RetrieveRequest":
        if (self.queries is None) == (self.query is None):
            raise ValueError('give either "queries" (a list) or "query" (one text)')
        for name in ("query_ids", "gold_ids"):
            ids = getattr(self, name)
            if ids is not None and len(ids) != len(self._sent):
                raise ValueError(
                    f'"{name}" must have one entry for each query: got {len(ids)} for '
                    f"{len(self._sent)} queries"
                )
        if self.query_ids is not None and self.gold_ids is not None:
            raise ValueError('give "query_ids" or "gold_ids", not both')
        if self.gold_ids is not None and not all(self.gold_ids):
            raise ValueError('each entry of "gold_ids" needs at least one passage id')
        if self.wants_ranks and self.return_scores:
            raise ValueError('"return_scores" goes with documents; leave it out for ranks')
        return self

    @property
    def texts(self) -> list[str]:
        """The queries, whichever way they were sent, each cut at MAX_QUERY_CHARS. Halves of
        surrogate pairs, which JSON can carry and no tokenizer can read, become "?"."""
        cut = (query[:MAX_QUERY_CHARS] for query in self._sent)
        return [mended(query) for query in cut]

    @property
    def truncated(self) -> list[int]:
        """Positions of the queries that `texts` cuts."""
        return [i for i, query in enumerate(self._sent) if len(query) > MAX_QUERY_CHARS]

    @property
    def _sent(self) -> list[str]:
        return self.queries if self.queries is not None else [self.query or ""]

    @property
    def wants_ranks(self) -> bool:
        """True for the ranks shape, False for documents."""
        return self.query_ids is not None or self.gold_ids is not None

    @property
    def depth(self) -> int:
        """`topk` or the default of the shape."""
        default = DEFAULT_TOPK_RANKS if self.wants_ranks else DEFAULT_TOPK_DOCUMENTS
        return self.topk if self.topk is not None else default

    @property
    def wants_scores(self) -> bool:
        """Whether documents are wrapped with their score (SkyRL's client always unwraps them)."""
        return self.query is not None if self.return_scores is None else self.return_scores


class Document(_Wire):
    """A passage on the wire; `contents` is `"title"`, newline, text, or None where left out."""

    id: str
    contents: str | None = None


class ScoredDocument(_Wire):
    """A passage with its score."""

    document: Document
    score: float


class _Answer(_Wire):
    truncated: list[int] | None = Field(
        default=None,
        description=f"positions of queries that were cut at {MAX_QUERY_CHARS} characters; absent "
        "where none was",
    )

    degraded: bool | None = Field(
        default=None,
        description="true where shards are missing and `allow_degraded` was asked for: ranks are "
        "then lower bounds and lists lack passages; absent otherwise",
    )
    coverage: float | None = Field(
        default=None, description="beside `degraded`: share of the passages that was searched"
    )


class RanksResponse(_Answer):
    """1-based ranks of the best gold passage, -1 where it is not within topk."""

    result: list[int]


class DocumentsResponse(_Answer):
    """For each query its documents, best first."""

    result: list[list[Document]]


class ScoredDocumentsResponse(_Answer):
    """For each query its documents with their scores, best first."""

    result: list[list[ScoredDocument]]


class PassagesRequest(_Wire):
    """Passages by id."""

    doc_ids: list[Id] = Field(max_length=MAX_PASSAGES)


class PassageRecord(_Wire):
    """One passage, its parts apart."""

    doc_id: str
    title: str
    text: str


class PassagesResponse(_Wire):
    """The passages in the order of their ids."""

    result: list[PassageRecord]


class IndexCard(_Wire):
    """What one index is; None where its engine does not say."""

    engine: str
    num_passages: int | None
    fingerprint: str | None = Field(description="equal exactly where passages and settings are")
    coverage: float = Field(
        default=1.0, description="share of the passages whose shards can be searched now"
    )
    qrels_fingerprint: str | None = Field(description="of the qrels, None without any")


class ReadyResponse(IndexCard):
    """The server has answered a query of its own on every index. The card is that of the index
    asked for, or of the first."""

    ready: bool
    indexes: dict[str, IndexCard]


class LiveResponse(_Wire):
    """The process answers."""

    live: bool = True


class ErrorResponse(_Wire):
    """Every answer with a status of 400 or above."""

    error: str
    degraded: bool | None = Field(
        default=None, description="true where shards are missing; they are being restarted"
    )
    coverage: float | None = Field(
        default=None, description="beside `degraded`: share of the passages that is there"
    )
    unknown: list[str] | None = Field(
        default=None, description="passage ids of the request that are not in the index"
    )
