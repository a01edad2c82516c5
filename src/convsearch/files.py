"""File formats: one reader and one writer each. Every write is atomic; every bad line is named.

| noun | file | form |
| --- | --- | --- |
| turns | `turns.jsonl` | one `Turn` a line |
| relevance | `qrels.trec` | `qid 0 doc_id relevance`; or BEIR's three columns |
| rewrites | `rewrites.jsonl` | one `Rewrite` a line |
| topic switches | `turn_info.jsonl` | `qid`, `topic_switch` (true, false or null) |
| ranking | `run.trec` | `qid Q0 doc_id rank score tag` |

A name that ends in `.gz` is read and written compressed. Bytes become lines and JSON in `texts.py`,
the columns of TREC are taken apart in `trec.py`. Passages (`corpus.jsonl`) are in `passages.py`,
passports in `passport.py`.
"""

import errno
import gzip
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TypeVar

from convsearch import trec
from convsearch.errors import ConvsearchError, DataError, WriteError
from convsearch.texts import Record, read_jsonl, read_lines
from convsearch.trec import Qrels, Run
from convsearch.types import Hit, Message, Rewrite, Turn

T = TypeVar("T")

_LARGEST_INT = 2**63 - 1
_STATUSES = ("ok", "malformed", "failed")


def stem_of(path: Path) -> str:
    """What the files that belong to one output are named by: its name without `.jsonl` or
    `.parquet`, `a.0.7` for `a.0.7.jsonl`; the whole name where it ends otherwise, so that `a.json`
    and `a.jsonl` have files of their own."""
    for form in (".jsonl", ".parquet"):
        if path.name.endswith(form) and path.name != form:
            return path.name.removesuffix(form)
    return path.name


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


@contextmanager
def appearing_together(folder: Path) -> Iterator[Path]:
    """A folder to write files into, which are moved to `folder` when the block ends without an
    error. An error leaves what `folder` held before, and no new folder."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        yield staging
        for file in sorted(staging.iterdir()):
            file.replace(folder / file.name)
        missing = []
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for place in missing:
            with suppress(OSError):
                place.rmdir()


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
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        raise DataError(f'{where}: field "{name}" must fit into 64 bits; mend the line')
    return value


def id_field(record: Record, name: str, where: str) -> str:
    """An id: a non-empty string without white space, which TREC files cannot hold."""
    value = field(record, name, str, where)
    if not is_id(value):
        raise DataError(
            f'{where}: field "{name}" must be a non-empty id without white space, found {value!r}'
        )
    return value


def is_id(text: str) -> bool:
    """Whether TREC files and trec_eval can hold it: not empty, no white space, no zero byte."""
    return text.split() == [text] and "\0" not in text


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


def read_qrels(path: Path) -> Qrels:
    """Reads judgements; see `trec.parse_qrels`. Raises DataError for bad lines or none at all."""
    return trec.parse_qrels(lambda: read_lines(path), str(path))


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
    """Writes six-column TREC lines; ranks are positions in `run`, from 1.

    Raises DataError for an id that such a line cannot hold, as a server of another program may
    send.
    """
    with atomic_write(path) as out:
        for qid, hits in run.items():
            for rank, hit in enumerate(hits, 1):
                if not is_id(hit.doc_id):
                    raise DataError(
                        f"{path}: passage {hit.doc_id!r} of qid {qid!r} cannot stand in a TREC "
                        "run; ids must be texts without white space"
                    )
                out.write(f"{qid} Q0 {hit.doc_id} {rank} {hit.score:.6f} {tag}\n")


def read_run(path: Path) -> Run:
    """Reads a six-column TREC run, in the order of its lines; see `trec.parse_run`."""
    return trec.parse_run(read_lines(path))


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
