"""Converts the pooled format of `../shared/data` (one folder a data set) into a data set folder.

The source holds `corpus.jsonl` (`id`, `text`, `title` where there is one) and one or more of
`train.jsonl`, `dev.jsonl`, `test.jsonl` (`id`, `conv`, `turn`, `split`, `question`, `history`,
`gold` or `page_passages`), each plain or `.gz`. Answers and rewrites are not read: they come from
the gold passage. Page titles (`gold_page`, else those of the gold passages) tell topic switches,
which stand in a file of their own, apart from the turns.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from convsearch.data.dataset import CORPUS, PASSPORT, QRELS, TURN_INFO, TURNS, find_file
from convsearch.data.outputs import folder_output
from convsearch.data.pooled_turns import encoded, pooled_golds, pooled_turn
from convsearch.data.staging import staged_folder
from convsearch.data.text_look import TextLook
from convsearch.data.topics import pages_of_golds, topic_switches
from convsearch.errors import DataError, MissingFileError
from convsearch.files import (
    Qrels,
    field,
    read_jsonl,
    write_qrels,
    write_turn_info,
    write_turns,
)
from convsearch.passages import read_parts, unique_passages, write_passages
from convsearch.passport import sha256_of, write_passport
from convsearch.types import Passage, Turn

STAGE = "data pooled"
SPLITS = ("train", "dev", "test")
REPAIRS = (
    "joined_messages",
    "added_user_messages",
    "added_agent_messages",
    "encoded_ids",
    "untitled_passages",
)
"""Counts in the passport: what was mended, so that nothing has to be dropped."""


def convert_pooled(
    source: Path, out: Path, *, name: str | None = None, fresh: bool = False
) -> dict[str, int]:
    """Writes `out` from `source` and returns the counts, which are also in its passport.

    Every turn of the source becomes one turn. Mended and counted: neighbours of the same role in a
    history are joined with a blank, a history that the agent opens gets an empty user text before
    it, one that ends with the user gets an empty answer, ids that hold white space are
    percent-encoded, missing titles are empty. All `page_passages` are relevant where a turn has
    them, else its `gold`.
    name: of the data set; the folder's name by default. An output of the same files and name is
    kept; fresh: makes it anew.
    Raises DataError or MissingFileError for anything else that is wrong; `out` is then untouched.
    """
    started = time.monotonic()
    corpus_path, turn_paths = pooled_files(source, out)
    files = [corpus_path, *turn_paths]
    made_of = {
        "name": name or source.resolve().name,
        **{file.name: sha256_of(file) for file in files},
    }
    output = folder_output(out, STAGE, made_of, sources=files)
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter()
    counts.update(dict.fromkeys(REPAIRS, 0))
    turns, qrels, mentions, gold_pages = _turns(turn_paths, counts)
    titles: dict[str, str] = {}
    look = TextLook()
    with staged_folder(out, owned=output.traces) as staging:
        counts["num_turns"] = write_turns(staging / TURNS, turns)
        counts["num_passages"] = write_passages(
            staging / CORPUS, look.watch(_passages(corpus_path, mentions, titles, counts))
        )
        counts.update(look.counts())
        check_all_found(mentions, corpus_path)
        write_qrels(staging / QRELS, qrels)
        switches = topic_switches(turns, {**pages_of_golds(qrels, titles), **gold_pages})
        counts["num_topic_switches"] = sum(switch is True for switch in switches.values())
        counts["num_same_topic"] = sum(switch is False for switch in switches.values())
        if counts["num_topic_switches"] + counts["num_same_topic"]:
            write_turn_info(staging / TURN_INFO, switches)
        write_passport(
            staging / PASSPORT,
            stage=STAGE,
            settings={"name": name or source.resolve().name, "source": str(source)},
            inputs=[corpus_path, *turn_paths],
            counts=counts,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def pooled_files(source: Path, out: Path) -> tuple[Path, list[Path]]:
    """The corpus of a folder in the pooled format, and the files of its splits that are there.

    Raises MissingFileError without a corpus or any split, DataError where `out` is the source.
    """
    if not source.is_dir():
        raise MissingFileError(f"{source}: no such folder; name a folder with {CORPUS} in it")
    if out.resolve() == source.resolve():
        raise DataError(f"{out}: is the source itself; name another output folder")
    corpus_path = find_file(source, CORPUS)
    found = [find_file(source, f"{split}.jsonl") for split in SPLITS]
    paths = [path for path in found if path is not None]
    if corpus_path is None or not paths:
        wanted = CORPUS if corpus_path is None else " or ".join(f"{s}.jsonl" for s in SPLITS)
        raise MissingFileError(f"{source}: {wanted} missing (also looked for .gz); check the path")
    return corpus_path, paths


def check_all_found(missing: Mapping[str, str], corpus_path: Path) -> None:
    """Raises DataError for gold passages, id -> where it is named, that the corpus lacks."""
    for doc_id, where in missing.items():
        raise DataError(f"{where}: gold passage {doc_id!r} is not in {corpus_path.name}")


def _turns(
    paths: list[Path], counts: Counter[str]
) -> tuple[list[Turn], Qrels, dict[str, str], dict[str, frozenset[str]]]:
    """Turns, their gold passages, for each gold passage the first line that names it, and the
    `gold_page` of the turns that have one."""
    turns: list[Turn] = []
    qrels: Qrels = {}
    mentions: dict[str, str] = {}
    pages: dict[str, frozenset[str]] = {}
    for path in paths:
        for where, record in read_jsonl(path):
            turn = pooled_turn(record, where, counts)
            if turn.qid in qrels:
                raise DataError(f"{where}: id {turn.qid!r} occurs twice; turn ids must be unique")
            golds = pooled_golds(record, where)
            for gold in golds:
                mentions.setdefault(gold, where)
            qrels[turn.qid] = dict.fromkeys(golds, 1)
            if record.get("gold_page") is not None:
                pages[turn.qid] = frozenset([field(record, "gold_page", str, where)])
            turns.append(turn)
            counts[f"num_turns_{turn.split}"] += 1
    if not turns:
        raise DataError(f"{paths[0].parent}: no turns in {', '.join(p.name for p in paths)}")
    return turns, qrels, mentions, pages


def _passages(
    path: Path, mentions: dict[str, str], titles: dict[str, str], counts: Counter[str]
) -> Iterator[Passage]:
    """Streams the corpus, and moves what it holds from `mentions` to `titles`."""
    repairs: Counter[str] = Counter()
    for passage in unique_passages(path, lambda: _read_passages(path, repairs)):
        if mentions.pop(passage.doc_id, None) is not None:
            titles[passage.doc_id] = passage.title
        counts["untitled_passages"] += not passage.title
        yield passage
    counts.update(repairs)


def _read_passages(path: Path, repairs: Counter[str]) -> Iterator[tuple[str, Passage]]:
    """(place, passage) of each. repairs: gets the counts of this reading alone."""
    repairs.clear()
    for where, parts in read_parts(path):
        doc_id = encoded(parts.doc_id, where, repairs)
        yield where, Passage(doc_id=doc_id, title=parts.title, text=parts.text)
