"""Conversations and passages of one's own: two files to a data set folder.

What conversations may look like is in `conversations`, what passages may, in `passage_forms`.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from convsearch.data.conversations import Asked, read_conversations
from convsearch.data.corpus_job import RawPassage, check_found, make_corpus, prepared_folder
from convsearch.data.dataset import CORPUS, PASSPORT, QRELS, TURNS, find_file
from convsearch.data.outputs import folder_output
from convsearch.data.raw_turns import count_turns
from convsearch.data.text_look import BLANK, HTML, REPEATED
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import Qrels, write_qrels, write_turns
from convsearch.passages import read_parts
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Passage, Turn

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
    paths, corpus = _files(conversations), _corpus(passages)
    settings = {
        "name": name or out.resolve().name,
        "dev_share": dev_share,
        "test_share": test_share,
        "conversations": {str(path): sha256_of(path) for path in paths},
        "passages": {str(corpus): sha256_of(corpus)},
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
        turns, golds = _turns(paths, (dev_share, test_share), seed, counts)
        wanted = {doc_id: qid for qid, ids in golds.items() for doc_id in ids}
        report = make_corpus(folder, lambda: _passages(corpus), wanted=wanted.keys(), look=True)
        check_found(wanted, report)
        count_turns(turns, counts)
        counts["num_passages"] = report.num_passages
        counts[HTML], counts[REPEATED] = report.num_html, report.num_repeated
        counts[BLANK] = report.num_blank
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


def _files(given: Path) -> list[Path]:
    """The file, or those of a folder that hold conversations: `train.jsonl`, `dev.jsonl` and
    `test.jsonl`, or BEIR's `queries.jsonl`. Raises MissingFileError."""
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise MissingFileError(f"{given}: no such file; check the path")
    splits = [find_file(given, f"{split}.jsonl") for split in SPLITS]
    found = [path for path in splits if path] or [find_file(given, "queries.jsonl")]
    paths = [path for path in found if path]
    if not paths:
        raise MissingFileError(
            f"{given}: holds neither train.jsonl, dev.jsonl or test.jsonl nor queries.jsonl; name "
            "the file of the conversations"
        )
    return paths


def _corpus(given: Path) -> Path:
    """The file, or `corpus.jsonl` of the folder. Raises MissingFileError."""
    path = find_file(given, CORPUS) if given.is_dir() else given
    if path is None or not path.is_file():
        raise MissingFileError(f"{given}: no such file; check the path")
    return path


def _turns(
    paths: Sequence[Path], shares: tuple[float, float], seed: int, counts: Counter[str]
) -> tuple[list[Turn], dict[str, list[str]]]:
    """Turns that have a relevant passage, and the ids of these by qid."""
    asked: dict[str, Asked] = {}
    for path in paths:
        by_file = path.name.partition(".")[0] if len(paths) > 1 else None
        for each in read_conversations(path, counts):
            if each.qid in asked:
                raise DataError(
                    f"{each.where}: turn {each.qid!r} is also in {asked[each.qid].where}; ids must "
                    "be unique"
                )
            asked[each.qid] = replace(each, split=each.split or by_file)
    split_of = _splits(asked.values(), shares, seed)
    golds = {qid: list(each.relevant) for qid, each in asked.items() if each.relevant}
    counts["turns_without_gold"] += len(asked) - len(golds)
    if not golds:
        raise DataError(
            f'{paths[0]}: no turn names a relevant passage; "relevant" must list passage ids'
        )
    turns = [
        Turn(
            qid=qid,
            conv_id=asked[qid].conv_id,
            turn=asked[qid].number,
            split=split_of[asked[qid].conv_id],
            question=asked[qid].question,
            history=asked[qid].history,
        )
        for qid in golds
    ]
    return turns, golds


def _splits(asked: Collection[Asked], shares: tuple[float, float], seed: int) -> dict[str, str]:
    """The split of each conversation: its own, or drawn where none names one."""
    named: dict[str, Asked] = {}
    for each in asked:
        first = named.setdefault(each.conv_id, each)
        if first.split != each.split:
            raise DataError(
                f"{each.where}: split {each.split!r}, but {first.split!r} in {first.where}; a "
                "conversation belongs to one split"
            )
    if not any(each.split for each in named.values()):
        drawn = sorted(named, key=lambda conv: (_draw(conv, seed), conv))
        dev, test = (round(share * len(named)) for share in shares)
        order = ["test"] * test + ["dev"] * dev + ["train"] * (len(named) - dev - test)
        return dict(zip(drawn, order, strict=False))
    for each in named.values():
        if each.split not in SPLITS:
            raise DataError(
                f'{each.where}: "split" must be train, dev or test in every conversation or in '
                f"none, found {each.split!r}"
            )
    return {conv: str(each.split) for conv, each in named.items()}


def _draw(conv_id: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{conv_id}".encode()).digest()[:8], "big")


def _passages(path: Path) -> Iterator[RawPassage]:
    """Streams the passages. Raises DataError for a bad one."""
    for where, parts in read_parts(path):
        if parts.doc_id.split() != [parts.doc_id]:
            raise DataError(f"{where}: {parts.doc_id!r} is not an id without white space")
        passage = Passage(doc_id=parts.doc_id, title=parts.title, text=parts.text)
        yield RawPassage(raw_id=parts.doc_id, passage=passage, where=where)
