"""What the converters of published data sets share: histories, held-out conversations, files."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convsearch.data.catalogue import RawFile, RawSet, load_catalogue, raw_set
from convsearch.data.download import Fetched, fetch
from convsearch.data.transfer import DownloadSettings, Progress
from convsearch.errors import ConfigError, DataError
from convsearch.files import Record, field, write_rewrites
from convsearch.types import Message, Rewrite, Turn

VALIDATION_SPLIT = "dev"
"""Split of the conversations held out of the training data; published test data is `test`."""
DEFAULT_VALIDATION_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class RawSource:
    """Where raw files lie, and whether missing ones may be fetched."""

    folder: Path
    """Download folder."""
    offline: bool = False
    """Nothing is fetched; a missing file is named instead."""
    catalogue: Path | None = None
    """Another `downloads.json`, such as one with own mirrors."""
    download: DownloadSettings | None = None
    """How hard to try; None for the usual way."""
    on_progress: Progress | None = None
    """Hears how far a download is."""

    def known(self, name: str) -> RawSet:
        """A set of the catalogue. Raises ConfigError, DataError or MissingFileError."""
        return raw_set(load_catalogue(self.catalogue), name)

    def files(self, name: str) -> dict[str, Fetched]:
        """All files of a set, here and checked, by name. Raises as `download.fetch` does."""
        return {each.name: each for each in self.fetch(self.known(name).files)}

    def fetch(self, files: Sequence[RawFile]) -> list[Fetched]:
        """These files, here and checked. Raises as `download.fetch` does."""
        return fetch(
            files,
            self.folder,
            offline=self.offline,
            settings=self.download,
            on_progress=self.on_progress,
        )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What of a published data set is taken, and how strict its counts are."""

    validation_share: float = DEFAULT_VALIDATION_SHARE
    """Share of the training conversations that become the split `dev`; 0 holds none out."""
    seed: int = 0
    """Of the draw of these conversations."""
    keep_one_in: int = 1
    """Every nth passage is written, and every relevant one; above 1 scores are not comparable."""
    expected: tuple[tuple[str, int], ...] = ()
    """Counts that replace published ones: (name, count)."""
    allow_count_mismatch: bool = False
    """A difference from the published counts is told instead of an error."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ConfigError(
                f"the validation share must be 0 or more and below 1, got {self.validation_share}"
            )
        if self.keep_one_in < 1:
            raise ConfigError(f"keep_one_in must be 1 or more, got {self.keep_one_in}")


def question_of(record: Record, name: str, where: str) -> str:
    """The question as asked, its white space trimmed. Raises DataError where it is empty."""
    question = field(record, name, str, where).strip()
    if not question:
        raise DataError(f'{where}: field "{name}" is empty; mend the line, or fetch the file again')
    return question


def alternating(texts: Sequence[object], where: str, counts: Counter[str]) -> tuple[Message, ...]:
    """Question, answer, question, answer ... as a history.

    A list of odd length, which ends with an unanswered question, gets an empty answer and is
    counted (`added_agent_messages`). Raises DataError for anything that is no text.
    """
    messages = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{where}: the context must hold texts, found {type(text).__name__}")
        messages.append(Message(role="agent" if i % 2 else "user", text=text))
    if len(messages) % 2:
        messages.append(Message(role="agent", text=""))
        counts["added_agent_messages"] += 1
    return tuple(messages)


def hold_out(
    turns: Sequence[Turn], *, share: float, seed: int, split: str = VALIDATION_SPLIT
) -> list[Turn]:
    """The same turns, with whole conversations moved from `train` to another split.

    As many conversations as the share says, rounded, and at least one where there are two or more;
    which ones depends on their ids and the seed alone.
    """
    conversations = {turn.conv_id for turn in turns if turn.split == "train"}
    number = min(max(round(share * len(conversations)), 1), len(conversations) - 1)
    if not share or number < 1:
        return list(turns)
    drawn = sorted(conversations, key=lambda conv: (_draw(conv, seed), conv))[:number]
    held = set(drawn)
    return [
        replace(turn, split=split) if turn.split == "train" and turn.conv_id in held else turn
        for turn in turns
    ]


def write_human_rewrites(folder: Path, turns: Sequence[Turn], texts: Mapping[str, str]) -> int:
    """Writes `human_rewrites.jsonl` for the split `test` and `human_rewrites.dev.jsonl` for `dev`;
    returns how many of both have a text.

    For `convsearch eval --rewrites`: an upper baseline, never an input of a policy. A turn for
    which nobody wrote one has status `failed`. None is written for training turns.
    """
    written = 0
    for split, name in (("test", "human_rewrites.jsonl"), ("dev", "human_rewrites.dev.jsonl")):
        rewrites = [
            _human(turn.qid, texts.get(turn.qid, "")) for turn in turns if turn.split == split
        ]
        if rewrites:
            write_rewrites(folder / name, rewrites)
        written += sum(rewrite.status == "ok" for rewrite in rewrites)
    return written


def count_turns(turns: Sequence[Turn], counts: Counter[str]) -> None:
    """Adds `num_turns` and, for each split, `num_turns_<split>`, `num_conversations_<split>`."""
    counts["num_turns"] = len(turns)
    for split in sorted({turn.split for turn in turns}):
        of_split = [turn for turn in turns if turn.split == split]
        counts[f"num_turns_{split}"] = len(of_split)
        counts[f"num_conversations_{split}"] = len({turn.conv_id for turn in of_split})


def _human(qid: str, text: str) -> Rewrite:
    text = " ".join(text.split())
    if not text:
        return Rewrite(
            qid=qid, status="failed", text=None, response="", seed=0, error="no human rewrite"
        )
    return Rewrite(qid=qid, status="ok", text=text, response=text, seed=0)


def _draw(conv_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{conv_id}".encode()).digest()
