"""What a run of inference is to make: one sample for each turn and candidate.

Prompts are built when a block needs them, so that they are never all in memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convsearch.errors import ConfigError, DataError
from convsearch.infer.engine import Block, SamplingParams
from convsearch.infer.journal import Key
from convsearch.prompts import PromptStyle, PromptTemplate, rewrite_messages
from convsearch.prompts.asking import Asking
from convsearch.types import ChatMessage, Turn, derive_seed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The samples of a run by number: the candidates of the first turn, of the second, and so on.

    Raises DataError for no turns or a qid that occurs twice, ConfigError for impossible numbers or
    a prompt that the style does not have.
    """

    turns: Sequence[Turn]
    """In the order of the output."""
    style: PromptStyle
    """How a turn is asked about and the answer read."""
    params: SamplingParams
    """How tokens are drawn."""
    seed: int
    """Same seed, same rewrites."""
    shots: int = 0
    """Worked examples in the prompt."""
    candidates: int = 1
    """Rewrites of each turn."""
    template: PromptTemplate | None = None
    """The user's own prompt."""
    told: Asking | None = None
    """What the model's folder says of how to ask; explains malformed answers, decides nothing."""

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError(f"candidates must be 1 or more, got {self.candidates}")
        if self.candidates > 1 and self.params.temperature == 0:
            raise ConfigError(
                f"{self.candidates} candidates at temperature 0 are all the same; raise the "
                "temperature, or ask for one"
            )
        if not self.turns:
            raise DataError("there are no turns to rewrite; check the file and the split")
        qids = Counter(turn.qid for turn in self.turns)
        twice = [qid for qid, count in qids.items() if count > 1]
        if twice:
            raise DataError(f"qid {twice[0]!r} occurs twice among the turns; ids must be unique")
        self.chat(0)  # an impossible prompt is known before a model is loaded

    def __len__(self) -> int:
        return len(self.turns) * self.candidates

    def key(self, number: int) -> Key:
        """(qid, candidate) of a sample."""
        return self.turns[number // self.candidates].qid, number % self.candidates

    def sample_keys(self) -> Iterator[Key]:
        """Of all samples, in order."""
        return map(self.key, range(len(self)))

    def seed_of(self, number: int) -> int:
        """Of a sample: from the run's seed, the qid and the candidate alone."""
        return derive_seed(self.seed, *self.key(number))

    def chat(self, number: int) -> list[ChatMessage]:
        """The prompt of a sample. Raises ConfigError where the style has no such prompt."""
        turn = self.turns[number // self.candidates]
        return rewrite_messages(turn, self.style, shots=self.shots, template=self.template)

    def block(self, numbers: Sequence[int]) -> Block:
        """These samples, as an engine takes them."""
        return Block(
            chats=[self.chat(n) for n in numbers], seeds=[self.seed_of(n) for n in numbers]
        )

    def prompts_sha256(self) -> str:
        """A hash of all ids and prompts."""
        digest = hashlib.sha256()
        for number in range(len(self)):
            digest.update(json.dumps([*self.key(number), self.chat(number)]).encode())
        return digest.hexdigest()
