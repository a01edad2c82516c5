"""Topics of TREC CAsT: the questions of a year, what was answered before, and human rewrites."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convsearch.errors import DataError
from convsearch.files import Record, field
from convsearch.texts import read_json, read_lines

Year = Literal[2019, 2020, 2021]


@dataclass(frozen=True, kw_only=True)
class TopicTurn:
    """One question of a topic, with what later turns may know of its answer."""

    topic: int
    number: int
    question: str
    rewrite: str = ""
    """By a person; empty where there is none."""
    answer: str | None = None
    """Text of the answer that later questions build on. None: the year gives none, or an id."""
    answer_id: str | None = None
    """Id of the passage that was shown as the answer."""

    @property
    def qid(self) -> str:
        """As in the judgements."""
        return f"{self.topic}_{self.number}"


def read_topics(year: Year, topics: Path, resolved: Path | None = None) -> list[TopicTurn]:
    """All questions of a year, in order.

    2019 gives questions only, and rewrites in `resolved` (`topic_turn`, tab, text). 2020 names the
    passage that was the answer; 2021 holds its text. Raises MissingFileError or DataError.
    """
    entries = read_json(topics, "fetch it again")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{topics}: expected an array of topics")
    rewrites = _resolved(resolved) if resolved else {}
    turns: dict[str, TopicTurn] = {}
    for position, entry in enumerate(entries, 1):
        where = f"{topics}: topic {position}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: not an object")
        topic = field(entry, "number", int, where)
        for item in field(entry, "turn", list, where):
            if not isinstance(item, dict):
                raise DataError(f"{where}: a turn is not an object")
            turn = _turn(year, topic, item, rewrites, where)
            if turn.qid in turns:
                raise DataError(f"{where}: turn {turn.qid} occurs twice")
            turns[turn.qid] = turn
    return list(turns.values())


def _turn(
    year: Year, topic: int, item: Record, rewrites: Mapping[str, str], where: str
) -> TopicTurn:
    number = field(item, "number", int, where)
    where = f"{where}, turn {number}"
    question = field(item, "raw_utterance", str, where).strip()
    if not question:
        raise DataError(f'{where}: field "raw_utterance" is empty; fetch the file again')
    if year == 2019:
        return TopicTurn(
            topic=topic,
            number=number,
            question=question,
            rewrite=rewrites.get(f"{topic}_{number}", ""),
        )
    rewrite = field(item, "manual_rewritten_utterance", str, where).strip()
    if year == 2020:
        answer, answer_id = None, item.get("manual_canonical_result_id")
    else:
        answer, answer_id = field(item, "passage", str, where).strip(), None
    return TopicTurn(
        topic=topic,
        number=number,
        question=question,
        rewrite=rewrite,
        answer=answer,
        answer_id=answer_id if isinstance(answer_id, str) and answer_id else None,
    )


def _resolved(path: Path) -> dict[str, str]:
    rewrites = {}
    for where, line in read_lines(path):
        qid, tab, text = line.strip().partition("\t")
        if not tab or not text.strip():
            raise DataError(f"{where}: expected a turn, a tab and its rewritten question")
        rewrites[qid] = text.strip()
    return rewrites
