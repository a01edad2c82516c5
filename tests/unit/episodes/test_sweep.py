"""The sweep's cells, table and curves, and the seconds of single questions."""

from pathlib import Path

import pytest
from scored_episodes import FEW, GOLDS, MANY, QUESTIONS

from convsearch.agent.ablation import equal_documents, equal_table
from convsearch.episodes.evaluation import equal_budget, score_run
from convsearch.episodes.latency import percentiles, read_seconds, seconds_path, write_seconds
from convsearch.episodes.sweep import Cell, sweep_cells, sweep_curves, sweep_table
from convsearch.errors import ConfigError, DataError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, Question


def test_every_setting_is_one_cell():
    cells = sweep_cells([1, 3, 3], [5], ["none", "extractive"])
    assert [c.name for c in cells] == [
        "none_k5_n1", "none_k5_n3", "extractive_k5_n1", "extractive_k5_n3",
    ]  # fmt: skip
    for wrong in (([0], [1], ["none"]), ([1], [], ["none"]), ([1], [1], ["zip"]), ([1], [1], [])):
        with pytest.raises(ConfigError):
            sweep_cells(*wrong)


def test_the_table_shows_unequal_and_equal_budgets():
    scored = {
        Cell(n=1, k=3, squeezer="none"): score_run("many", MANY, QUESTIONS, GOLDS),
        Cell(n=3, k=3, squeezer="none"): score_run(
            "few", FEW, QUESTIONS, GOLDS, seconds_of={"q0": 1.0, "q1": 3.0}
        ),
    }
    table = sweep_table(scored, equal_budget(list(scored.values()))).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert table[0].endswith("EM within 2 documents | EM within 12 tokens | failed |")
    assert table[2].startswith("| none | 3 | 1 | 0.250 [")
    assert table[2].endswith("|  | 0.000 | 0.250 | 1 |")
    assert table[3].endswith("| 1.000 | 0.500 | 0.500 | 0 |")
    curves = sweep_curves(scored)
    assert curves["em"] == {"none, k = 3": [(1, 0.25), (3, 0.5)]}
    assert set(curves) == {"em", "all_gold_read"}


def test_seconds_survive_their_file_and_are_checked(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    assert read_seconds(path) == {}
    write_seconds(path, ["b", "a", "none"], {"a": 0.5, "b": 2.0})
    assert seconds_path(path).name == "episodes.seconds.jsonl"
    assert list(read_seconds(path).items()) == [("b", 2.0), ("a", 0.5)]
    seconds_path(path).write_text('{"qid": "a", "seconds": -1}\n')
    with pytest.raises(DataError, match=r"seconds.jsonl:1.*0 or more"):
        read_seconds(path)


def test_percentiles_are_values_that_were_measured():
    assert percentiles([]) == {}
    assert percentiles([3.0]) == {"p50": 3.0, "p90": 3.0, "p99": 3.0}
    assert percentiles([float(i) for i in range(1, 101)]) == {"p50": 50, "p90": 90, "p99": 99}
    run = score_run(
        "x", FEW, QUESTIONS, GOLDS,
        passport={"settings": {"batch_size": 4}}, seconds_of={q.qid: 1.5 for q in QUESTIONS},
    )  # fmt: skip
    assert run.latency == {"p50": 1.5, "p90": 1.5, "p99": 1.5, "batch_size": 4}
    assert run.scores[0].seconds == 1.5


PASSAGES = [
    Passage(doc_id="g1", title="ada", text="ada lovelace"),
    Passage(doc_id="z2", title="tea", text="tea leaves"),
    *(Passage(doc_id=f"x{n}", title="ada", text="ada ada ada") for n in range(4)),
]


def test_equal_documents_gives_every_n_as_many():
    question = Question(
        qid="q", dataset="d", question="ada", answers=(), type="", split="dev"
    )  # fmt: skip
    asked: list[int] = []

    class Watched(InMemoryRetriever):
        def search(self, queries, topk):
            asked.append(topk)
            return super().search(queries, topk)

    rows = equal_documents(
        [question], {"q": ["z2"]}, Watched(PASSAGES), ns=[1, 2], documents=[1, 2],
        variants=lambda text, n: [text, "tea"][:n],
    )  # fmt: skip
    assert asked == [2]
    found = {(row.documents, row.n): row.all_gold for row in rows}
    assert found == {(1, 1): 0, (1, 2): 0, (2, 1): 0, (2, 2): 1}
    assert (rows[3].gain, rows[2].gain) == (1, 0)
    assert len({line.count("|") for line in equal_table(rows).splitlines()}) == 1
    with pytest.raises(ConfigError):
        equal_documents([question], {"q": ["z2"]}, Watched(PASSAGES), documents=[0])
    with pytest.raises(DataError, match="no gold passage"):
        equal_documents([question], {}, Watched(PASSAGES))
