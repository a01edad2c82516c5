"""Reader of the tables beside this module.

`table1` to `table9` are those of ConvSearch-R1 (arXiv 2505.15776), `later` is what came after it on
the same data. `qa_sets` holds exact match of search agents on seven question sets, a set being a
metric there. Values are per cent, as printed; None is a figure that was not printed. Those of
`table4` are numbers of training examples.
"""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from convsearch.errors import ConfigError

TABLES = ("table1", "table2", "table3", "table5", "table6", "table8", "table9", "later")
"""Those with metrics of a data set and engine."""
QA_SETS = "qa_sets"
"""The table of search agents."""
SIZES = "table4"
"""The table of sizes of the self-distilled data; its metric is `examples`, its engine empty."""
Trust = Literal["V", "S", "U"]
"""V: read in the text that printed it. S: read in a text that quotes it. U: not verified."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method on one data set and search engine."""

    method: str
    engine: str
    """`bm25`, `ance` or `repllama`; `e5` for search agents; empty in SIZES."""
    dataset: str
    values: dict[str, float | None]
    """Metric, by our name -> per cent, or a number of examples in SIZES."""
    source: str
    trust: Trust
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedMean:
    """A mean that a table prints beside its rows, over all values of the data sets named."""

    method: str
    engine: str
    datasets: tuple[str, ...]
    mean: float


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table with its source."""

    name: str
    title: str
    source: str
    url: str
    notes: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    means: tuple[PublishedMean, ...]


def published_table(name: str) -> PublishedTable:
    """Reads one table. Raises ConfigError for a name that is not in TABLES, SIZES or QA_SETS."""
    if name not in (*TABLES, SIZES, QA_SETS):
        raise ConfigError(f"unknown published table {name!r}; choose one of {', '.join(TABLES)}")
    path = resources.files("convsearch.eval.published") / f"{name}.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    source = table["source"]["where"]
    return PublishedTable(
        name=name,
        title=table["title"],
        source=source,
        url=table["source"]["url"],
        notes=tuple(table["notes"]),
        rows=tuple(
            PublishedRow(
                method=row["method"],
                engine=row["engine"],
                dataset=row["dataset"],
                values=dict(zip(table["metrics"], row["values"], strict=True)),
                source=row.get("source", source),
                trust=row.get("trust", table["trust"]),
                note=row.get("note"),
            )
            for row in table["rows"]
        ),
        means=tuple(
            PublishedMean(
                method=mean["method"],
                engine=mean["engine"],
                datasets=tuple(mean["datasets"]),
                mean=mean["mean"],
            )
            for mean in table["means"]
        ),
    )


def published_rows(table: str, dataset: str, engine: str) -> list[PublishedRow]:
    """The rows of one table for one data set and search engine.

    Raises ConfigError where there are none, with what the table holds.
    """
    rows = published_table(table).rows
    found = [row for row in rows if (row.dataset, row.engine) == (dataset, engine)]
    if not found:
        held = sorted({f"{row.dataset}/{row.engine}" for row in rows})
        raise ConfigError(
            f"{table} has no numbers for {dataset}/{engine}; it has {', '.join(held)}"
        )
    return found
