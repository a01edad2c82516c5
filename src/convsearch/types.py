"""The nouns of the project. One home each; everything else passes them around."""

import hashlib
from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "agent"]
Status = Literal["ok", "malformed", "failed"]
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


def derive_seed(seed: int, qid: str, candidate: int = 0) -> int:
    """Seed of one sample, in [0, 2^31): the same in whatever batch, order or restart."""
    digest = hashlib.sha256(f"{seed}\x1f{qid}\x1f{candidate}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
