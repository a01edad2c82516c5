"""File formats: one reader and one writer each. Every write is atomic; every bad line is named.

| noun | file | form |
| --- | --- | --- |
| turns | `turns.jsonl` | one `Turn` a line |
| relevance | `qrels.trec` | `qid 0 doc_id relevance` |
| rewrites | `rewrites.jsonl` | one `Rewrite` a line |
| topic switches | `turn_info.jsonl` | `qid`, `topic_switch` (true, false or null) |
| ranking | `run.trec` | `qid Q0 doc_id rank score tag` |

A name that ends in `.gz` is read and written compressed. Passages (`corpus.jsonl`) are in
`passages.py`, passports in `passport.py`.
"""

import errno
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TypeVar

from convsearch.errors import ConvsearchError, DataError, MissingFileError, WriteError
from convsearch.types import Hit, Message, Rewrite, Turn

Record = dict[str, object]
Qrels = dict[str, dict[str, int]]
"""qid -> doc_id -> relevance (above 0 is relevant)."""
Run = dict[str, list[Hit]]
"""qid -> hits, best first."""
T = TypeVar("T")

_STATUSES = ("ok", "malformed", "failed")


def open_text(path: Path) -> IO[str]:
    """Opens for reading, through gzip where the name says so. Raises MissingFileError."""
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; check the path or run the stage that makes it"
        )
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a disk answers that takes no more, in the middle of a file."""
_NUMBERS = re.compile(r"(?:\(os error |\[Errno )(\d+)")
"""The system's number in the words of Rust, of Arrow and of `shutil`."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Where the disk takes no more of what the block writes, raises a WriteError that names this
    file. The system names none in the middle of a file, numpy gives no number, and libraries in
    other languages raise what they like."""
    try:
        yield
    except ConvsearchError:
        raise
    except Exception as error:
        if (reason := disk_reason(error)) is None:
            raise
        raise WriteError(
            f"{path}: cannot be written ({reason}); make room or name another place, and give the "
            "same command again"
        ) from error


def disk_reason(error: Exception) -> str | None:
    """What a disk that takes no more said, whoever passed it on; None for any other error."""
    for number in _NUMBERS.findall(str(error)):
        if int(number) in _FULL:
            return os.strerror(int(number))
    if isinstance(error, OSError) and error.errno in _FULL:
        return error.strerror or str(error)
    is_numpys = type(error) is OSError and error.errno is None and "requested and" in str(error)
    return f"{os.strerror(errno.ENOSPC)}: {error}" if is_numpys else None


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # also a link that somebody put there
        with writing(path), temporary.open("xb") as raw:
            if path.suffix == ".gz":  # no name, no time: the same content gives the same bytes
                zipped = gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0)
                with zipped, io.TextIOWrapper(zipped, encoding="utf-8", newline="\n") as out:
                    yield out
            else:
                with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as out:
                    yield out
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """The same for content that is no text, such as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (`file:line`, line), empty ones left out. Raises DataError where bytes are damaged."""
    number = 0
    with open_text(path) as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", line
        except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
            kind = "text in UTF-8" if isinstance(error, UnicodeDecodeError) else "a whole gzip file"
            raise DataError(
                f"{path}: not {kind} (after line {number}); copy or make it again"
            ) from None


def read_jsonl(path: Path) -> Iterator[tuple[str, Record]]:
    """Yields (`file:line`, object). Raises DataError that names file and line."""
    for where, line in read_lines(path):
        yield where, parse_json(line, where)


def parse_json(line: str, where: str) -> Record:
    """One line of a `.jsonl` file. Raises DataError where it is no JSON object."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error.msg}); mend the line") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
        raise DataError(f"{where}: not read as JSON ({error}); mend the line") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(record).__name__}")
    return record


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> int:
    """Writes one object a line, atomically; returns how many."""
    count = 0
    with atomic_write(path) as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def field(record: Record, name: str, kind: type[T], where: str) -> T:
    """`record[name]`, checked. Raises DataError where it is missing or of another type."""
    if name not in record:
        raise DataError(f'{where}: field "{name}" is missing')
    value = record[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(
            f'{where}: field "{name}" must be {kind.__name__}, found {type(value).__name__}'
        )
    return value


def id_field(record: Record, name: str, where: str) -> str:
    """An id: a non-empty string without white space, which TREC files cannot hold."""
    value = field(record, name, str, where)
    if not value or value.split() != [value]:
        raise DataError(
            f'{where}: field "{name}" must be a non-empty id without white space, found {value!r}'
        )
    return value


# --- turns ---------------------------------------------------------------------------------------


def parse_turn(record: Record, where: str) -> Turn:
    """One turn of `turns.jsonl`. Raises DataError for a missing field, a wrong type, an empty
    question, or a history that does not alternate user, agent, ... and end with the agent."""
    question = field(record, "question", str, where)
    if not question.strip():
        raise DataError(f'{where}: field "question" is empty; remove the turn or mend it')
    history = []
    for i, item in enumerate(field(record, "history", list, where)):
        expected = ("user", "agent")[i % 2]
        if not isinstance(item, dict) or item.get("role") != expected:
            raise DataError(
                f'{where}: history[{i}] must have role "{expected}" (user and agent alternate, '
                "the user begins)"
            )
        text = field(item, "text", str, f"{where}: history[{i}]")
        history.append(Message(role=expected, text=text))
    if len(history) % 2:
        raise DataError(
            f"{where}: history has an odd number of messages ({len(history)}); it must end with an "
            "agent's answer (text may be empty where none was given)"
        )
    return Turn(
        qid=id_field(record, "qid", where),
        conv_id=id_field(record, "conv_id", where),
        turn=field(record, "turn", int, where),
        split=field(record, "split", str, where),
        question=question,
        history=tuple(history),
    )


def read_turns(path: Path, *, split: str | None = None) -> list[Turn]:
    """All turns, or those of one split. Raises DataError for a repeated qid or an empty result."""
    turns: dict[str, Turn] = {}
    for where, record in read_jsonl(path):
        turn = parse_turn(record, where)
        if turn.qid in turns:
            raise DataError(f"{where}: qid {turn.qid!r} occurs twice; ids must be unique")
        turns[turn.qid] = turn
    kept = [t for t in turns.values() if split is None or t.split == split]
    if not kept:
        splits = sorted({t.split for t in turns.values()})
        raise DataError(
            f"{path}: no turns{f' of split {split!r}; splits here: {splits}' if split else ''}"
        )
    return kept


def write_turns(path: Path, turns: Iterable[Turn]) -> int:
    """Writes `turns.jsonl`; returns how many."""
    return write_jsonl(path, map(asdict, turns))


def read_turn_info(path: Path) -> dict[str, bool | None]:
    """qid -> whether the turn switches the topic; None where that is not known.

    Raises DataError for a missing or wrong field and for a repeated qid.
    """
    switches: dict[str, bool | None] = {}
    for where, record in read_jsonl(path):
        qid = id_field(record, "qid", where)
        if qid in switches:
            raise DataError(f"{where}: qid {qid!r} occurs twice; ids must be unique")
        switch = record.get("topic_switch", "")
        if switch is not None and not isinstance(switch, bool):
            raise DataError(f'{where}: field "topic_switch" must be true, false or null')
        switches[qid] = switch
    return switches


def write_turn_info(path: Path, switches: Mapping[str, bool | None]) -> int:
    """Writes `turn_info.jsonl`; returns how many."""
    return write_jsonl(
        path, ({"qid": qid, "topic_switch": switch} for qid, switch in switches.items())
    )


# --- relevance and rankings ----------------------------------------------------------------------


def _columns(path: Path, count: int, shape: str) -> Iterator[tuple[str, list[str]]]:
    for where, line in read_lines(path):
        parts = line.split()
        if len(parts) != count:
            raise DataError(f"{where}: expected {count} columns ({shape}), found {len(parts)}")
        yield where, parts


def _int(text: str, where: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{where}: {name} must be int, found {text!r}") from None


def _float(text: str, where: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {name} must be float, found {text!r}") from None
    if math.isnan(value):
        raise DataError(f"{where}: {name} must be a number, found {text!r}")
    return value


def read_qrels(path: Path) -> Qrels:
    """Reads `qid 0 doc_id relevance` lines. Raises DataError for bad lines or none at all."""
    qrels: Qrels = {}
    for where, (qid, _, doc_id, relevance) in _columns(path, 4, "qid 0 doc_id relevance"):
        qrels.setdefault(qid, {})[doc_id] = _int(relevance, where, "relevance")
    if not qrels:
        raise DataError(f"{path}: no relevance judgements in this file")
    return qrels


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Writes `qrels.trec`."""
    with atomic_write(path) as out:
        for qid, docs in qrels.items():
            for doc_id, relevance in docs.items():
                out.write(f"{qid} 0 {doc_id} {relevance}\n")


def gold_ids(qrels: Qrels, qid: str) -> list[str]:
    """The relevant passages of a query. Raises DataError where the qrels do not know the query."""
    if qid not in qrels:
        raise DataError(f"qid {qid!r} has no line in the qrels; use the qrels of the same data set")
    return [doc_id for doc_id, relevance in qrels[qid].items() if relevance > 0]


def write_run(path: Path, run: Mapping[str, Sequence[Hit]], *, tag: str) -> None:
    """Writes six-column TREC lines; ranks are positions in `run`, from 1."""
    with atomic_write(path) as out:
        for qid, hits in run.items():
            for rank, hit in enumerate(hits, 1):
                out.write(f"{qid} Q0 {hit.doc_id} {rank} {hit.score:.6f} {tag}\n")


def read_run(path: Path) -> Run:
    """Reads a six-column TREC run, in the order of its rank column.

    Raises DataError for a bad line and for a passage that is ranked twice for one query.
    """
    ranked: dict[str, list[tuple[int, Hit]]] = {}
    seen: set[tuple[str, str]] = set()
    shape = "qid Q0 doc_id rank score tag"
    for where, (qid, _, doc_id, rank, score, _) in _columns(path, 6, shape):
        hit = Hit(doc_id=doc_id, score=_float(score, where, "score"))
        if (qid, doc_id) in seen:
            raise DataError(f"{where}: passage {doc_id!r} of qid {qid!r} is ranked twice")
        seen.add((qid, doc_id))
        ranked.setdefault(qid, []).append((_int(rank, where, "rank"), hit))
    return {
        qid: [hit for _, hit in sorted(hits, key=lambda pair: pair[0])]
        for qid, hits in ranked.items()
    }


# --- rewrites ------------------------------------------------------------------------------------


def parse_rewrite_record(record: Record, where: str) -> Rewrite:
    """One rewrite of `rewrites.jsonl`. Raises DataError for a missing field or a wrong type."""
    status = field(record, "status", str, where)
    if status not in _STATUSES:
        raise DataError(f'{where}: field "status" must be one of {", ".join(_STATUSES)}')
    text = record.get("text")
    if (status == "ok") != isinstance(text, str):
        raise DataError(f'{where}: field "text" must be a string exactly where status is "ok"')
    error = record.get("error")
    return Rewrite(
        qid=id_field(record, "qid", where),
        status=status,
        text=text if isinstance(text, str) else None,
        response=field(record, "response", str, where),
        seed=field(record, "seed", int, where),
        candidate=field(record, "candidate", int, where),
        num_tokens=field(record, "num_tokens", int, where),
        error=error if isinstance(error, str) else None,
    )


def read_rewrites(path: Path) -> list[Rewrite]:
    """Reads `rewrites.jsonl`. Raises DataError for a bad line, a repeated (qid, candidate), or a
    file that holds none."""
    rewrites: dict[tuple[str, int], Rewrite] = {}
    for where, record in read_jsonl(path):
        rewrite = parse_rewrite_record(record, where)
        key = (rewrite.qid, rewrite.candidate)
        if key in rewrites:
            raise DataError(f"{where}: qid {key[0]!r} candidate {key[1]} occurs twice")
        rewrites[key] = rewrite
    if not rewrites:
        raise DataError(f'{path}: holds no rewrite; make it with "convsearch infer"')
    return list(rewrites.values())


def write_rewrites(path: Path, rewrites: Iterable[Rewrite]) -> int:
    """Writes `rewrites.jsonl`; returns how many."""
    return write_jsonl(path, map(asdict, rewrites))
