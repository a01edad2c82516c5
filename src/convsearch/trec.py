"""The columns of TREC's files: judgements (`qid 0 doc_id grade`) and rankings (`qid Q0 doc_id rank
score tag`). Columns are parted by blanks or tabs.

Of the second column, the rank and the tag nothing is taken, as in trec_eval.
"""

import logging
import math
import re
from collections.abc import Callable, Iterable

from convsearch.errors import DataError
from convsearch.types import Hit

Qrels = dict[str, dict[str, int]]
"""qid -> doc_id -> relevance (above 0 is relevant)."""
Run = dict[str, list[Hit]]
"""qid -> hits, best first."""
Lines = Iterable[tuple[str, str]]
"""(`file:line`, line)."""

MAX_GRADE = 100_000
"""Largest relevance, and with a minus the smallest. trec_eval's code keeps a number for each grade
up to the largest: a grade near 2^31 takes 16 GB, and the query is lost where they are not there."""

_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?)", re.I)
_QRELS = "qid 0 doc_id relevance"
_RUN = "qid Q0 doc_id rank score tag"
_BEIR = ["query-id", "corpus-id", "score"]
_ITERATIONS = {"0", "Q0"}
"""What stands in the second column of nearly every file."""

_log = logging.getLogger(__name__)


def parse_qrels(read: Callable[[], Lines], path: str) -> Qrels:
    """Judgements, from four columns, or from BEIR's three under their header.

    read: the lines, from the beginning by each call. Whole numbers may be written as decimals; a
    negative grade is one that is not relevant. The same judgement twice counts once. Raises
    DataError for a bad line, two grades of one passage (named with both lines), columns in
    another order, and a file without judgements.
    """
    qrels: Qrels = {}
    iterations: set[str] = set()
    count = 4
    for where, line in read():
        parts = line.split()
        if (count == 3 or not qrels) and _is_beir_header(parts):
            count = 3
            continue
        if len(parts) != count:
            raise DataError(_wrong_columns(where, parts, count))
        qid, doc_id = parts[0], parts[-2]
        grade = _grade(parts, where)
        docs = qrels.setdefault(qid, {})
        if docs.setdefault(doc_id, grade) != grade:
            first = next(place for place, other in read() if _judges(other, qid, doc_id))
            raise DataError(
                f"{where}: passage {doc_id!r} of qid {qid!r} has relevance {grade} here and "
                f"{docs[doc_id]} in line {first.rpartition(':')[2]}; remove one of the two lines"
            )
        if len(iterations) <= len(_ITERATIONS):
            iterations.add(parts[1])
    if not qrels:
        raise DataError(f"{path}: no relevance judgements in this file")
    if count == 4 and not iterations <= _ITERATIONS and _all_in_third(qrels):
        raise DataError(
            f"{path}: the third column of every line is 0, so the passage seems to stand in the "
            f"second; expected {_QRELS}"
        )
    return qrels


def parse_run(lines: Lines) -> Run:
    """A ranking of six columns, the hits of a query in the order of their lines, from wherever in
    the file these stand.

    Raises DataError for a bad line and for a passage that is ranked twice for one query. A query
    that stands in several places, as where two runs were joined, is told in the log.
    """
    run: Run = {}
    seen: set[tuple[str, str]] = set()
    apart: dict[str, str] = {}
    last = None
    for where, line in lines:
        parts = line.split()
        if len(parts) != 6:
            hint = "; these are judgements, for --qrels" if len(parts) == 4 else ""
            raise DataError(f"{where}: expected 6 columns ({_RUN}), found {len(parts)}{hint}")
        qid, _, doc_id, _, score, _ = parts
        if (qid, doc_id) in seen:
            raise DataError(f"{where}: passage {doc_id!r} of qid {qid!r} is ranked twice")
        seen.add((qid, doc_id))
        if qid != last and qid in run:
            apart.setdefault(qid, where)
        last = qid
        run.setdefault(qid, []).append(Hit(doc_id=doc_id, score=_score(score, where)))
    if apart:
        qid, where = next(iter(apart.items()))
        _log.warning(
            "%s: qid %r stands in more than one place of this run, and so do %d others; their "
            "lists are joined, as trec_eval joins them. Two runs in one file are not one run",
            where,
            qid,
            len(apart) - 1,
        )
    return run


def _grade(parts: list[str], where: str) -> int:
    text = parts[-1]
    value = _number(text)
    if value is None or not (value.is_integer() or math.isinf(value)):
        hint = ""
        if value is None and len(parts) == 4 and _number(parts[2]) is not None:
            hint = f"; the columns are {_QRELS}"
        elif value is None and parts[0].lower() in ("qid", "query-id", "query_id", "topic"):
            hint = "; remove the line of headings"
        elif value is not None:
            hint = "; grades are whole numbers, such as 0, 1, 2"
        raise DataError(f"{where}: relevance must be a whole number, found {text!r}{hint}")
    if abs(value) > MAX_GRADE:
        raise DataError(
            f"{where}: relevance must be between -{MAX_GRADE:,} and {MAX_GRADE:,}, found {text!r}"
        )
    return int(value)


def _score(text: str, where: str) -> float:
    value = _number(text)
    if value is None:
        raise DataError(f"{where}: score must be a number, found {text!r}")
    return value


def _number(text: str) -> float | None:
    """None for what is none, as `nan`, and for what only Python takes, as `1_0`."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _is_beir_header(parts: list[str]) -> bool:
    return [part.lower().replace("_", "-") for part in parts] == _BEIR


def _judges(line: str, qid: str, doc_id: str) -> bool:
    parts = line.split()
    return parts[0] == qid and parts[-2] == doc_id


def _all_in_third(qrels: Qrels) -> bool:
    return all(docs.keys() <= _ITERATIONS for docs in qrels.values())


def _wrong_columns(where: str, parts: list[str], count: int) -> str:
    if count == 3:
        return f"{where}: expected 3 columns ({' '.join(_BEIR)}), found {len(parts)}"
    hint = ""
    if len(parts) == 6:
        hint = "; this is a ranking, for --run"
    elif len(parts) == 3:
        hint = f'; BEIR\'s three columns need their first line, "{" ".join(_BEIR)}"'
    elif len(parts) == 1 and "," in parts[0]:
        hint = "; columns are parted by blanks or tabs, not by commas"
    return f"{where}: expected 4 columns ({_QRELS}), found {len(parts)}{hint}"
