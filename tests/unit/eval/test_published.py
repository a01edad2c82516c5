"""The shipped tables against rows typed here by hand, and against the means that are printed."""

import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from convsearch.errors import ConfigError
from convsearch.eval import METRICS
from convsearch.eval.published import QA_SETS, SIZES, TABLES, published_rows, published_table

ROOT = Path(__file__).parents[3]
OURS = "Qwen2.5-3B + ConvSearch-R1"


@pytest.mark.parametrize(
    ("table", "dataset", "engine", "method", "values"),
    [
        ("table1", "topiocqa", "bm25", "Raw query", [2.1, 1.8, 4.0, 9.2]),
        ("table1", "topiocqa", "bm25", OURS, [35.2, 33.5, 57.8, 79.9]),
        ("table1", "qrecc", "bm25", "CHIQ-Fusion", [54.3, 51.9, 78.5, None]),
        ("table1", "qrecc", "bm25", "CONQRR", [38.3, None, 60.1, 88.9]),
        ("table1", "qrecc", "ance", "Human rewrite", [38.4, 35.6, 58.6, 78.1]),
        ("table1", "topiocqa", "ance", "AdaQR", [38.1, 36.6, 61.3, 79.9]),
        ("table2", "topiocqa", "ance", OURS, [35.2, 34.2, 57.0, 75.4]),
        ("table2", "qrecc", "bm25", "RETPO", [40.1, None, 62.2, 86.5]),
        ("table3", "qrecc", "ance", "self-distillation only", [39.9, 37.5, 59.3, 73.8]),
        ("table5", "topiocqa", "ance", "reinforcement learning only", [23.7, 22.8, 38.1, 54.8]),
        ("table6", "topiocqa", "bm25", "exponential", [36.8, 35.5, 58.2, 79.6]),
        ("table8", "qrecc", "repllama", OURS, [51.7, 49.7, 70.9, 81.1]),
        ("table9", "cast2021", "ance", "ConvSearch-R1", [73.2, 52.1, None, None]),
        ("later", "qrecc", "bm25", "MSPA-CQR (Llama2-7B)", [57.4, None, None, 95.2]),
    ],
)
def test_rows_are_as_printed(
    table: str, dataset: str, engine: str, method: str, values: list[float | None]
):
    (row,) = [r for r in published_rows(table, dataset, engine) if r.method == method]
    assert list(row.values.values()) == values
    assert list(row.values) == ["mrr", "ndcg_cut_3", "recall_10", "recall_100"]
    assert set(row.values) <= set(METRICS)
    assert "arXiv" in row.source


def test_table_1_holds_every_method_on_every_data_set_that_it_prints():
    counts = Counter((r.dataset, r.engine) for r in published_table("table1").rows)
    assert counts == {
        ("topiocqa", "bm25"): 15,
        ("qrecc", "bm25"): 19,
        ("topiocqa", "ance"): 15,
        ("qrecc", "ance"): 19,
    }


@pytest.mark.parametrize("name", TABLES)
def test_printed_means_are_the_means_of_the_rows(name: str):
    """Within the rounding of the rows (0.05) and of the mean itself (0.05)."""
    table = published_table(name)
    assert bool(table.means) is (name in ("table1", "table5", "table6"))
    for mean in table.means:
        values = [
            value
            for row in table.rows
            if (row.method, row.engine) == (mean.method, mean.engine)
            and row.dataset in mean.datasets
            for value in row.values.values()
        ]
        assert len(values) == 4 * len(mean.datasets)
        assert None not in values
        assert sum(v for v in values if v is not None) / len(values) == pytest.approx(
            mean.mean, abs=0.1
        )


@pytest.mark.parametrize("name", TABLES)
def test_values_are_per_cent_and_deeper_recall_is_no_smaller(name: str):
    table = published_table(name)
    keys = [(r.method, r.engine, r.dataset) for r in table.rows]
    assert len(set(keys)) == len(keys)
    assert table.url.startswith("https://arxiv.org")
    for row in table.rows:
        assert row.trust in ("V", "S", "U")
        assert all(v is None or 0 < v < 100 for v in row.values.values())
        shallow, deep = row.values["recall_10"], row.values["recall_100"]
        assert shallow is None or deep is None or shallow < deep


def test_sizes_of_the_self_distilled_data_are_as_printed():
    rows = published_table(SIZES).rows
    assert {(r.method, r.dataset): r.values for r in rows} == {
        ("Qwen2.5-3B", "topiocqa"): {"examples": 5892},
        ("Qwen2.5-3B", "qrecc"): {"examples": 7759},
        ("Llama3.2-3B", "topiocqa"): {"examples": 6034},
        ("Llama3.2-3B", "qrecc"): {"examples": 6623},
    }


def test_search_agents_have_sources_and_means_that_fit():
    """IGRPO's printed mean is not that of its values, and its row says so."""
    table = published_table(QA_SETS)
    assert len({row.method for row in table.rows}) == len(table.rows)
    assert any("Bamboogle has 125 questions" in note for note in table.notes)
    for row in table.rows:
        *values, mean = row.values.values()
        assert len(values) == 7
        assert row.source
        assert row.trust in ("V", "S", "U")
        known = [value for value in values if value is not None]
        assert all(0 <= value < 100 for value in known)
        if len(known) == 7 and mean is not None:
            differs = abs(sum(known) / 7 - mean) > 0.1
            assert differs == (row.note is not None and "the mean of the seven" in row.note)
        if row.values["bamboogle"] and row.values["bamboogle"] > 60:
            assert row.note is not None
            assert "another protocol" in row.note


def test_tables_agree_where_they_repeat_each_other():
    """Table 1 prints the first and last row of table 3, and table 6 the first."""
    for engine in ("bm25", "ance"):
        for dataset in ("topiocqa", "qrecc"):
            main = {r.method: r.values for r in published_rows("table1", dataset, engine)}
            stages = {r.method: r.values for r in published_rows("table3", dataset, engine)}
            assert stages["both stages"] == main[OURS]
            assert stages["no training"] == main["Qwen2.5-3B zero-shot"]
        shapes = {r.method: r.values for r in published_rows("table6", "topiocqa", engine)}
        assert (
            shapes["piecewise"]
            == {r.method: r.values for r in published_rows("table1", "topiocqa", engine)}[OURS]
        )


def test_what_is_not_there_is_named():
    with pytest.raises(ConfigError, match="table1 has no numbers for mini/bm25; it has qrecc/ance"):
        published_rows("table1", "mini", "bm25")
    with pytest.raises(ConfigError, match="unknown published table 'table7'"):
        published_table("table7")


def test_the_wheel_carries_the_tables(tmp_path: Path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (*TABLES, SIZES, QA_SETS):
        assert f"convsearch/eval/published/{name}.json" in names
