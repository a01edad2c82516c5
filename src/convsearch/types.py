"""The nouns of the project. One home each; everything else passes them around."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["user", "agent"]
Status = Literal["ok", "malformed", "failed"]
EpisodeStatus = Literal["answered", "no_answer", "failed"]
SpanKind = Literal["model", "tool"]
ChatMessage = dict[str, str]
"""One message as chat templates take it: `{"role": ..., "content": ...}`."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One utterance of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question of a conversation, with all that was said before it.

    `history` alternates user, agent, user, agent ... and so has an even length. Nothing that comes
    from the gold passage (answer, page title, human rewrite) is ever part of a turn.
    """

    qid: str
    conv_id: str
    turn: int
    """1-based position in the conversation."""
    split: str
    question: str
    history: tuple[Message, ...] = ()

    @property
    def history_query(self) -> str:
        """The question with the whole conversation before it: the strongest trivial baseline."""
        return " ".join([*(m.text for m in self.history if m.text), self.question])


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One unit of retrieval."""

    doc_id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """Title and text as the wire contract of `/retrieve` writes them."""
        return f'"{self.title}"\n{self.text}' if self.title else self.text


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One retrieved passage."""

    doc_id: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """What a policy made of one turn. Failure is a value, so counts in equal counts out.

    `ok`: `text` is the search query. `malformed`: the response broke the format, `text` is None.
    `failed`: the engine gave no response for this turn, `error` says why.
    """

    qid: str
    status: Status
    text: str | None
    response: str
    seed: int
    candidate: int = 0
    num_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question for a search agent. Answers and type are for scoring, never for a prompt."""

    qid: str
    dataset: str
    question: str
    answers: tuple[str, ...]
    """Every accepted answer; empty where the source has none."""
    type: str
    """Kind of question, such as `bridge` or `comparison`; empty where the source has none."""
    split: str


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of an episode that one side wrote."""

    kind: SpanKind
    """`model`: sampled by the policy. `tool`: search results and corrections, escaped."""
    text: str
    num_tokens: int = 0
    """Of this span; estimated from its length where the engine does not say."""
    queries: tuple[str, ...] = ()
    """tool: what was searched for it; empty for a correction."""
    doc_ids: tuple[str, ...] = ()
    """tool: the passages behind it, in fused order."""
    squeezed: bool | None = None
    """tool: whether the squeezer wrote it; None where none was asked."""
    fault: str | None = None
    """model: why the turn was no valid call and no answer."""
    well_formed: bool = False
    """model: exactly one thought, then exactly one action, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """All that an agent did about one question. Failure is a value: one episode a question."""

    qid: str
    strategy: str
    tool_format: str
    status: EpisodeStatus
    ended_by: str
    """What ended it: `answer`, `turns`, `queries`, `tokens`, `faults` or `error`."""
    answer: str | None
    """From the model's own text; None exactly where status is not `answered`."""
    spans: tuple[Span, ...]
    """What model and tools wrote, in order; the prompt comes before them."""
    queries: tuple[str, ...]
    """Every query that was searched, in order."""
    doc_ids: tuple[str, ...]
    """Distinct passages that were read, in the order of reading."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was mended or refused on the way, by name."""
    num_turns: int = 0
    """Texts that the model wrote."""
    num_model_tokens: int = 0
    num_tool_tokens: int = 0
    seed: int = 0
    error: str | None = None
    """failed: what the engine said."""


def derive_seed(seed: int, qid: str, candidate: int = 0) -> int:
    """Seed of one sample, in [0, 2^31): the same in whatever batch, order or restart."""
    digest = hashlib.sha256(f"{seed}\x1f{qid}\x1f{candidate}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
