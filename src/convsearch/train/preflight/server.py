"""Whether the retrieval server is there, and searches the corpus that the training file is of."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from convsearch.errors import DataError, RefusedError
from convsearch.retrieval.client import RetrieverClient
from convsearch.train.preflight.chats import Row

Id = TypeVar("Id")
"""Of a query, or those of its passages."""
logger = logging.getLogger(__name__)

READY_S = 5.0
"""Time for the server to answer at all."""
LOOKUP_S = 30.0
"""Time for one look-up."""
ATTEMPTS = 3
"""Of one look-up, since a server may be busy for a moment."""
SAMPLE = 64
"""Rows that are looked up, spread over the file."""
UNKNOWN = frozenset({404, 422})
"""Answers to an id that the server does not know."""
PROBE = "convsearch"
"""What is searched meanwhile; what it finds is of no interest."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one row asks the server to rank."""

    qid: str | None
    golds: tuple[str, ...]


def sample_targets(path: Path) -> list[Target]:
    """Of at most SAMPLE rows of a file of prompts."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        there = [name for name in ("extra_info", "reward_model") if name in file.schema_arrow.names]
        table = file.read(columns=there)
    step = max(1, table.num_rows // SAMPLE)
    rows: list[Row] = table.take(list(range(0, table.num_rows, step))[:SAMPLE]).to_pylist()
    return [_target(row) for row in rows]


def check_server(url: str, path: Path, targets: Sequence[Target]) -> None:
    """Raises RetrieverError where no server answers within seconds, and DataError where it knows
    none of the looked-up queries, or none of their passages. Some unknown ones are said in the log.
    """
    with RetrieverClient(url, timeout_s=LOOKUP_S, attempts=ATTEMPTS) as client:
        client.wait_ready(READY_S)
        qids = [target.qid for target in targets if target.qid is not None]
        _look_up(
            qids,
            lambda some: client.ranks_by_qid([PROBE] * len(some), some, 1),
            "queries",
            url,
            path,
        )
        ours = client.read_info() is not None
        golds = [t.golds for t in targets if t.golds and (ours or t.qid is None)]
        _look_up(
            golds,
            lambda some: client.ranks([PROBE] * len(some), some, 1),
            "relevant passages",
            url,
            path,
        )


def _look_up(
    ids: Sequence[Id],
    ask: Callable[[Sequence[Id]], object],
    what: str,
    url: str,
    path: Path,
) -> None:
    """Asks for all at once, and where that is refused one by one. ask raises RefusedError."""
    if not ids:
        return
    try:
        ask(ids)
    except RefusedError as error:
        _require_unknown(error)
    else:
        return
    unknown: list[str] = []
    for one in ids:
        try:
            ask([one])
        except RefusedError as error:
            _require_unknown(error)
            unknown.append(str(error))
    if len(unknown) == len(ids):
        raise DataError(
            f"{url}: none of the {len(ids)} {what} of {path} that were looked up is known to the "
            f"server ({unknown[0]}); serve the index and the qrels of the same data set: "
            '"convsearch serve --index INDEX --qrels QRELS"'
        )
    if unknown:
        logger.warning(
            "%s: %d of %d %s that were looked up are not known to %s (%s); a training that meets "
            "one stops",
            *(path, len(unknown), len(ids), what, url, unknown[0]),
        )


def _require_unknown(error: RefusedError) -> None:
    """Raises the error again where it is no word about an id, such as a missing key."""
    if error.status not in UNKNOWN:
        raise error


def _target(row: Row) -> Target:
    """What the row holds; nothing where it holds something else, which `chats` refuses."""
    info, model = row.get("extra_info"), row.get("reward_model")
    qid = info.get("query_id") if isinstance(info, dict) else None
    golds = model.get("ground_truth") if isinstance(model, dict) else None
    return Target(
        qid=str(qid) if qid is not None and str(qid) else None,
        golds=tuple(map(str, golds)) if isinstance(golds, list) else (),
    )
