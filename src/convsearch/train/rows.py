"""Looks into a Parquet file before a trainer does, so that a bad one is named in a sentence."""

from collections.abc import Sequence
from pathlib import Path

from convsearch.errors import DataError, DependencyError, MissingFileError, install_command


def count_rows(path: Path, *, needs: Sequence[str]) -> int:
    """Number of rows. Raises MissingFileError, or DataError where it is not Parquet, a column is
    missing, or there are no rows."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; run the stage that makes it")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DependencyError(f"pyarrow is not installed; run {install_command('train')}") from None
    try:
        with pq.ParquetFile(path) as file:
            names, rows = set(file.schema_arrow.names), file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error}); make it again") from None
    missing = [name for name in needs if name not in names]
    if missing:
        raise DataError(f'{path}: column "{missing[0]}" is missing; make the file again')
    if rows == 0:
        raise DataError(f"{path}: no rows; the stage before kept nothing to train on")
    return rows
