"""The file of finished episodes, `episodes.jsonl`: one `Episode` a line."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import Record, field, id_field, read_jsonl, write_jsonl
from convsearch.types import Episode, Span

_STATUSES = ("answered", "no_answer", "failed")


def parse_episode(record: Record, where: str) -> Episode:
    """One episode. Raises DataError for a missing field or a wrong type."""
    status = field(record, "status", str, where)
    answer = record.get("answer")
    if status not in _STATUSES:
        raise DataError(f'{where}: field "status" must be one of {", ".join(_STATUSES)}')
    if (status == "answered") != isinstance(answer, str):
        raise DataError(
            f'{where}: field "answer" must be a string exactly where status is "answered"'
        )
    counts = field(record, "counts", dict, where)
    error = record.get("error")
    return Episode(
        qid=id_field(record, "qid", where),
        strategy=field(record, "strategy", str, where),
        tool_format=field(record, "tool_format", str, where),
        status=status,
        ended_by=field(record, "ended_by", str, where),
        answer=answer if isinstance(answer, str) else None,
        spans=tuple(
            _span(span, f"{where}: spans[{i}]")
            for i, span in enumerate(field(record, "spans", list, where))
        ),
        queries=_texts(record, "queries", where),
        doc_ids=_texts(record, "doc_ids", where),
        counts={str(name): field(counts, name, int, f"{where}: counts") for name in counts},
        num_turns=field(record, "num_turns", int, where),
        num_model_tokens=field(record, "num_model_tokens", int, where),
        num_tool_tokens=field(record, "num_tool_tokens", int, where),
        seed=field(record, "seed", int, where),
        error=error if isinstance(error, str) else None,
    )


def read_episodes(path: Path) -> list[Episode]:
    """Reads `episodes.jsonl`. Raises DataError for a bad line, a repeated qid, or no episode."""
    episodes: dict[str, Episode] = {}
    for where, record in read_jsonl(path):
        episode = parse_episode(record, where)
        if episode.qid in episodes:
            raise DataError(f"{where}: qid {episode.qid!r} occurs twice; ids must be unique")
        episodes[episode.qid] = episode
    if not episodes:
        raise DataError(f'{path}: no episodes; make them with "convsearch agent infer"')
    return list(episodes.values())


def write_episodes(path: Path, episodes: Iterable[Episode]) -> int:
    """Writes `episodes.jsonl`; returns how many."""
    return write_jsonl(path, map(asdict, episodes))


def _span(record: object, where: str) -> Span:
    if not isinstance(record, dict) or record.get("kind") not in ("model", "tool"):
        raise DataError(f'{where}: must be an object with kind "model" or "tool"')
    squeezed, fault = record.get("squeezed"), record.get("fault")
    return Span(
        kind=record["kind"],
        text=field(record, "text", str, where),
        num_tokens=field(record, "num_tokens", int, where),
        queries=_texts(record, "queries", where),
        doc_ids=_texts(record, "doc_ids", where),
        squeezed=squeezed if isinstance(squeezed, bool) else None,
        fault=fault if isinstance(fault, str) else None,
        well_formed=field(record, "well_formed", bool, where),
    )


def _texts(record: Record, name: str, where: str) -> tuple[str, ...]:
    values = field(record, name, list, where)
    if not all(isinstance(value, str) for value in values):
        raise DataError(f'{where}: field "{name}" must hold texts')
    return tuple(str(value) for value in values)
