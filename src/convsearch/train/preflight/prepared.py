"""The rows of a training file as chats, and the file that the trainer reads where they changed."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import ConfigError, DataError
from convsearch.train.preflight.chats import Row
from convsearch.types import ChatMessage

ROWS_AT_ONCE = 4096
_CHAINED = "::"
"""In a path it makes the loader of prompts look for an archive."""


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """What is in a training file."""

    path: Path
    column: str
    """Where the trainer looks for the chats."""
    chats: list[list[ChatMessage]]
    """One for each row."""
    is_as_written: bool
    """Whether the file holds exactly these, in that column."""


def read_rows(
    path: Path,
    column: str,
    read: Callable[[Row], list[ChatMessage]],
    form: str,
    *,
    check: Callable[[Row], None] = lambda row: None,
) -> TrainingRows:
    """The chats of all rows. form: what a row should look like, for the error.

    Raises DataError that names the first row (1 is the first) that `read` or `check` refuses, and
    how many there are.
    """
    chats: list[list[ChatMessage]] = []
    as_written = True
    refused: list[str] = []
    for number, row in enumerate(_rows(path), 1):
        try:
            chat = read(row)
            check(row)
        except ValueError as error:
            refused.append(f"row {number}: {error}")
            continue
        chats.append(chat)
        as_written = as_written and row.get(column) == chat
    if refused:
        more = f" ({len(refused)} of {len(refused) + len(chats)} rows)" if len(refused) > 1 else ""
        raise DataError(f"{path}: {refused[0]}{more}; mend the rows, wanted is {form}")
    return TrainingRows(path=path, column=column, chats=chats, is_as_written=as_written)


def write_rows(rows: TrainingRows, chats: Sequence[list[ChatMessage] | None], target: Path) -> Path:
    """The file to train on: the one that was read where nothing changed, else `target`, which has
    its other columns and these chats. None leaves a row out."""
    if rows.is_as_written and list(chats) == rows.chats:
        return rows.path
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = [i for i, chat in enumerate(chats) if chat is not None]
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    column = pa.array([chats[i] for i in kept], type=pa.list_(message))
    table = pq.read_table(rows.path).take(kept)
    if rows.column in table.column_names:
        table = table.set_column(table.column_names.index(rows.column), rows.column, column)
    else:
        table = table.append_column(rows.column, column)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def as_pattern(path: Path) -> Path:
    """The path as verl's loader of prompts takes it, which reads names as patterns."""
    return Path(glob.escape(str(path)))


def check_name(path: Path) -> None:
    """Raises ConfigError for a name that no escape helps."""
    if _CHAINED in str(path.absolute()):
        raise ConfigError(
            f'{path}: the loader of prompts reads "{_CHAINED}" in a path as the address of an '
            "archive; rename the folder or name another"
        )


def _rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); make the file again") from None
