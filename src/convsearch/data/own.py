"""Conversations and passages of one's own: two files to a data set folder.

Conversations are JSON lines, one conversation a line: `id`, `turns` (each `question`, `answer`,
`relevant`: ids of passages) and, where one wants to say it, `split`. Passages are JSON lines of
`id`, `text` and perhaps `title`, or a `.tsv` of id, text and perhaps title.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from convsearch.data.corpus_job import RawPassage, check_found, make_corpus, prepared_folder
from convsearch.data.dataset import PASSPORT, QRELS, TURNS
from convsearch.data.outputs import folder_output
from convsearch.data.raw_turns import count_turns, question_of
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import (
    Qrels,
    Record,
    field,
    id_field,
    read_jsonl,
    read_lines,
    write_qrels,
    write_turns,
)
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Message, Passage, Turn

STAGE = "data own"
SPLITS = ("train", "dev", "test")


def convert_own(
    conversations: Path,
    passages: Path,
    out: Path,
    *,
    name: str | None = None,
    dev_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    fresh: bool = False,
) -> dict[str, int]:
    """Writes `out` and returns the counts, which are also in its passport.

    Where no conversation names a split, whole conversations are drawn: dev_share and test_share of
    them, the rest is `train`. Turns without relevant passages are left out and counted; they stay
    in the histories of later turns. An answer is part of the histories of later turns and of
    nothing else. An output of the same files and settings is kept; fresh: makes it anew.
    Raises DataError that names file and line, MissingFileError, or ConfigError.
    """
    started = time.monotonic()
    if not (dev_share >= 0 and test_share >= 0 and dev_share + test_share <= 1):
        raise ConfigError("the shares of dev and test must be 0 or more, and together at most 1")
    settings = {
        "name": name or out.resolve().name,
        "dev_share": dev_share,
        "test_share": test_share,
        "conversations": {str(conversations): _hash(conversations)},
        "passages": {str(passages): _hash(passages)},
    }
    content = {
        name: list(value.values()) if isinstance(value, dict) else value
        for name, value in settings.items()
    }
    sources = [conversations, passages]
    output = folder_output(out, STAGE, {**content, "seed": seed}, sources=sources)
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter(turns_without_gold=0)
    with prepared_folder(out, settings) as folder:
        turns, golds = _turns(conversations, (dev_share, test_share), seed, counts)
        wanted = {doc_id: qid for qid, ids in golds.items() for doc_id in ids}
        report = make_corpus(folder, lambda: _passages(passages), wanted=wanted.keys())
        check_found(wanted, report)
        count_turns(turns, counts)
        counts["num_passages"] = report.num_passages
        qrels: Qrels = {turn.qid: dict.fromkeys(golds[turn.qid], 1) for turn in turns}
        write_turns(folder / TURNS, turns)
        write_qrels(folder / QRELS, qrels)
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings=settings,
            counts=counts,
            seed=seed,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _hash(path: Path) -> str:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    return sha256_of(path)


def _turns(
    path: Path, shares: tuple[float, float], seed: int, counts: Counter[str]
) -> tuple[list[Turn], dict[str, list[str]]]:
    """Turns that have a relevant passage, and the ids of these by qid."""
    read: dict[str, tuple[str, Record]] = {}
    for where, record in read_jsonl(path):
        conv_id = id_field(record, "id", where)
        if conv_id in read:
            raise DataError(f"{where}: conversation {conv_id!r} occurs twice; ids must be unique")
        read[conv_id] = where, record
    if not read:
        raise DataError(f"{path}: no conversations in this file")
    split_of = _splits(read, shares, seed)
    turns: list[Turn] = []
    golds: dict[str, list[str]] = {}
    for conv_id, (where, record) in read.items():
        said: list[Message] = []
        for number, item in enumerate(field(record, "turns", list, where), 1):
            place = f"{where}, turn {number}"
            if not isinstance(item, dict):
                raise DataError(f"{place}: must be an object with question, answer and relevant")
            question = question_of(item, "question", place)
            relevant = _relevant(item, place)
            qid = f"{conv_id}_{number}"
            if relevant:
                golds[qid] = relevant
                turns.append(
                    Turn(
                        qid=qid,
                        conv_id=conv_id,
                        turn=number,
                        split=split_of[conv_id],
                        question=question,
                        history=tuple(said),
                    )
                )
            counts["turns_without_gold"] += not relevant
            answer = "" if item.get("answer") is None else field(item, "answer", str, place)
            said += [Message(role="user", text=question), Message(role="agent", text=answer)]
    if not turns:
        raise DataError(
            f'{path}: no turn names a relevant passage; "relevant" must list passage ids'
        )
    return turns, golds


def _relevant(item: Record, where: str) -> list[str]:
    listed = [] if item.get("relevant") is None else field(item, "relevant", list, where)
    ids = []
    for value in listed:
        is_text = isinstance(value, str | int) and not isinstance(value, bool)
        if not is_text or str(value).split() != [str(value)]:
            raise DataError(f'{where}: "relevant" must hold passage ids, found {value!r}')
        ids.append(str(value))
    return list(dict.fromkeys(ids))


def _splits(
    read: Mapping[str, tuple[str, Record]], shares: tuple[float, float], seed: int
) -> dict[str, str]:
    """The split of each conversation: its own, or drawn where none names one."""
    named = {conv: record.get("split") for conv, (_, record) in read.items()}
    if not any(named.values()):
        drawn = sorted(read, key=lambda conv: (_draw(conv, seed), conv))
        dev, test = (round(share * len(read)) for share in shares)
        order = ["test"] * test + ["dev"] * dev + ["train"] * (len(read) - dev - test)
        return dict(zip(drawn, order, strict=False))
    for conv, split in named.items():
        if split not in SPLITS:
            raise DataError(
                f'{read[conv][0]}: "split" must be train, dev or test in every conversation or in '
                f"none, found {split!r}"
            )
    return {conv: str(split) for conv, split in named.items()}


def _draw(conv_id: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{conv_id}".encode()).digest()[:8], "big")


def _passages(path: Path) -> Iterator[RawPassage]:
    """Streams the passages. Raises DataError for a bad line."""
    for where, doc_id, title, text in _rows(path):
        if doc_id.split() != [doc_id]:
            raise DataError(f"{where}: {doc_id!r} is not an id without white space")
        passage = Passage(doc_id=doc_id, title=title, text=text)
        yield RawPassage(raw_id=doc_id, passage=passage, where=where)


def _rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """(`file:line`, id, title, text) of each passage."""
    if ".tsv" in path.suffixes:
        for where, line in read_lines(path):
            columns = line.rstrip("\r\n").split("\t")
            if len(columns) not in (2, 3):
                raise DataError(f"{where}: expected id, text and perhaps a title, by tabs")
            yield where, columns[0], columns[2] if len(columns) == 3 else "", columns[1]
        return
    for where, record in read_jsonl(path):
        name = "doc_id" if "doc_id" in record else "id"
        doc_id = record.get(name)
        title = "" if record.get("title") is None else field(record, "title", str, where)
        yield (
            where,
            str(doc_id) if isinstance(doc_id, int) else field(record, name, str, where),
            title,
            field(record, "text", str, where),
        )
