"""Numbers that others published, as data: one JSON file a table, each with its source."""

from convsearch.eval.published.tables import (
    QA_SETS,
    SIZES,
    TABLES,
    PublishedMean,
    PublishedRow,
    PublishedTable,
    published_rows,
    published_table,
)

__all__ = [
    "QA_SETS",
    "SIZES",
    "TABLES",
    "PublishedMean",
    "PublishedRow",
    "PublishedTable",
    "published_rows",
    "published_table",
]
